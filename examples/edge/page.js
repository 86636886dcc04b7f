// The page: a file, the test recording or the microphone through a Spotter.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { Spotter, addNoise } from "./spotter.js";

const $ = (id) => document.getElementById(id);
ort.env.wasm.numThreads = 1; // more need headers that plain servers do not send

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}; make it with make_model.py`);
  return response.arrayBuffer();
}

async function open() {
  const [model, notes] = await Promise.all([fetched("model/keywords.onnx"), fetched("model/keywords.json")]);
  const spotter = await Spotter.open(ort, model, JSON.parse(new TextDecoder().decode(notes)));
  const factor = await spotter.realTimeFactor();
  const millions = (spotter.notes.parameters / 1e6).toFixed(2);
  const words = spotter.labels.filter((label) => !label.startsWith("_")).join(", ");
  $("about").textContent =
    `${millions} M parameters, ${(model.byteLength / 1e6).toFixed(1)} MB, real-time factor ${factor.toFixed(3)}; ` +
    `it knows: ${words}`;
  for (const id of ["file", "test", "microphone"]) $(id).disabled = false;
  return spotter;
}

function show({ timeS, word, confidence }) {
  const line = document.createElement("li");
  for (const text of [`${timeS.toFixed(2)} s`, word, confidence.toFixed(2)]) {
    line.append(Object.assign(document.createElement("span"), { textContent: text }));
  }
  $("words").append(line);
}

async function hearRecording(spotter, bytes) {
  const context = new OfflineAudioContext(1, 1, spotter.rateHz); // resamples what it decodes
  const sound = await context.decodeAudioData(bytes);
  let samples = sound.getChannelData(0);
  if ($("snr").value !== "") samples = addNoise(samples, Number($("snr").value));
  spotter.restart();
  $("words").replaceChildren();
  $("state").textContent = "listening …";
  const piece = spotter.rateHz / 50;
  const padded = new Float32Array(samples.length + spotter.size);
  padded.set(samples);
  for (let start = 0; start < padded.length; start += piece) {
    for (const word of await spotter.push(padded.subarray(start, start + piece), Number($("threshold").value))) show(word);
  }
  $("state").textContent = `heard ${sound.duration.toFixed(1)} s`;
}

async function hearMicrophone(spotter) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  const release = () => stream.getTracks().forEach((track) => track.stop());
  try {
    const context = new AudioContext({ sampleRate: spotter.rateHz });
    const worklet = `registerProcessor("tap", class extends AudioWorkletProcessor {
      process([[samples]]) { if (samples) this.port.postMessage(samples.slice()); return true; }
    });`;
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([worklet], { type: "text/javascript" })));
    const tap = new AudioWorkletNode(context, "tap");
    context.createMediaStreamSource(stream).connect(tap);
    spotter.restart();
    $("words").replaceChildren();
    $("state").textContent = "listening …";
    let work = Promise.resolve(); // one step at a time
    tap.port.onmessage = ({ data }) => {
      work = said(
        work.then(async () => {
          for (const word of await spotter.push(data, Number($("threshold").value))) show(word);
        }),
      );
    };
    return async () => {
      tap.port.onmessage = null;
      release();
      await context.close();
      await work; // the step that is under way must not end in the next stream
      $("state").textContent = "";
    };
  } catch (error) {
    release();
    throw error;
  }
}

/** Show what goes wrong. */
const said = (work) => work.catch((error) => { $("state").textContent = String(error.message ?? error); });

let stop = null;
async function listen(spotter, work) {
  for (const id of ["file", "test", "microphone"]) $(id).disabled = true;
  await said(work(spotter));
  for (const id of ["file", "test", "microphone"]) $(id).disabled = false;
}

said(open().then((spotter) => {
  $("file").addEventListener("change", ({ target }) => {
    const [file] = target.files; // none after Cancel
    if (file) listen(spotter, async () => hearRecording(spotter, await file.arrayBuffer()));
  });
  $("test").addEventListener("click", () =>
    listen(spotter, async () => hearRecording(spotter, await fetched("model/test.wav"))));
  $("microphone").addEventListener("click", () => said((async () => {
    const running = stop;
    stop = null;
    if (running) await running();
    else stop = await hearMicrophone(spotter);
    $("microphone").textContent = stop ? "Stop" : "Microphone";
    $("file").disabled = $("test").disabled = stop !== null;
  })()));
}));
