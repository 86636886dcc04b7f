// Words as they are said, in onnxruntime-web: the same as keywords.py.

const REST_S = 0.8; // for which a word that was found is not found again
const product = (dims) => dims.reduce((all, one) => all * one, 1);

/** A stream: samples in, in pieces of any length, and words out. */
export class Spotter {
  /** `ort` is the module, `model` the bytes of keywords.onnx, `notes` what is in keywords.json beside it. */
  static async open(ort, model, notes) {
    const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
    return new Spotter(ort, session, notes);
  }

  constructor(ort, session, notes) {
    Object.assign(this, { ort, session, notes, labels: notes.labels, rateHz: notes.sample_rate_hz });
    this.hop = notes.stream.hop_samples;
    this.size = notes.stream.block_samples;
    this.restart();
  }

  /** Forget what was heard. */
  restart() {
    this.samples = new Float32Array(this.notes.stream.padding_samples); // from the next block's first sample on
    this.begins = true;
    this.steps = 0;
    this.before = new Float32Array(this.labels.length);
    this.last = new Map();
    this.state = {};
    for (const [name, [type, ...dims]] of Object.entries(this.notes.state)) {
      const shape = [1, ...dims];
      const zeros = type === "int64" ? new BigInt64Array(product(shape)) : new Float32Array(product(shape));
      this.state[name] = new this.ort.Tensor(type, zeros, shape);
    }
  }

  /** The words in these samples: `{timeS, word, confidence}` each. */
  async push(samples, threshold) {
    const joined = new Float32Array(this.samples.length + samples.length);
    joined.set(this.samples);
    joined.set(samples, this.samples.length);
    this.samples = joined;
    const found = [];
    while (this.samples.length >= this.size) {
      const word = this.decide(await this.step(), threshold);
      if (word) found.push(word);
    }
    return found;
  }

  /** One step: the probabilities of the classes. */
  async step() {
    const { Tensor } = this.ort;
    const outputs = await this.session.run({
      samples: new Tensor("float32", this.samples.slice(0, this.size), [1, this.size]),
      num_samples: new Tensor("int64", BigInt64Array.of(BigInt(this.size)), [1]),
      begins: new Tensor("bool", [this.begins], [1]),
      ...this.state,
    });
    for (const name of Object.keys(this.state)) this.state[name] = outputs[name.replace("state.", "next.")];
    this.samples = this.samples.slice(this.hop);
    this.begins = false;
    this.steps += 1;
    return outputs.probabilities.data;
  }

  /** The mean of two steps' probabilities is above the threshold: a word. */
  decide(probabilities, threshold) {
    const mean = probabilities.map((value, index) => (value + this.before[index]) / 2);
    this.before = probabilities;
    const best = mean.indexOf(Math.max(...mean));
    const word = this.labels[best];
    if (mean[best] < threshold || word.startsWith("_")) return null;
    const timeS = (this.steps * this.hop) / this.rateHz;
    const isNew = timeS - (this.last.get(word) ?? -REST_S) >= REST_S;
    this.last.set(word, timeS);
    return isNew ? { timeS, word, confidence: mean[best] } : null;
  }

  /** Seconds of work per second of audio. */
  async realTimeFactor(seconds = 3) {
    await this.push(new Float32Array(this.rateHz), 2); // the first runs are slower
    const startedMs = performance.now();
    await this.push(new Float32Array(seconds * this.rateHz), 2);
    const tookS = (performance.now() - startedMs) / 1000;
    this.restart();
    return tookS / seconds;
  }
}

/** Speech with white noise `snrDb` below it. */
export function addNoise(speech, snrDb) {
  const power = speech.reduce((sum, value) => sum + value * value, 0) / speech.length;
  const level = Math.sqrt(3 * power / 10 ** (snrDb / 10)); // uniform noise has a third of its peak's power
  return speech.map((value) => value + level * (2 * Math.random() - 1));
}
