"""`robustdistiller listen`: speech under conditions, to look at and listen to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustdistiller.cli.command import command


@command()
def listen(
    conditions: Annotated[list[str], typer.Argument(help="Such as noise:snr_db=5.", metavar="CONDITION...")],
    model: Annotated[str | None, typer.Option(help="A student's file, or any model's name.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher of the student, if its file was moved.")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="Speech of your own: file or folder.")] = None,
    noise: Annotated[list[str] | None, typer.Option(help="Noise to draw from: file, folder or list.")] = None,
    rir: Annotated[list[str] | None, typer.Option(help="Impulse responses of rooms to draw from.")] = None,
    speech: Annotated[list[str] | None, typer.Option(help="Speech to draw babble and other talkers from.")] = None,
    music: Annotated[list[str] | None, typer.Option(help="Music to draw from; none is embedded.")] = None,
    utterances: Annotated[int, typer.Option(help="How many, at most.", min=1)] = 3,
    seconds: Annotated[
        float, typer.Option(help="Seconds of each utterance, from its beginning, at most.", min=0.1)
    ] = 6.0,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    out: Annotated[Path, typer.Option(help="File to write.", metavar="FILE")] = Path("listen.html"),
) -> None:
    """
    \b
      robustdistiller listen noise:snr_db=5 reverb:rt60_s=0.6 noise+reverb
      robustdistiller listen noise:snr_db=5 --audio talk.wav \\
          --noise kitchen/ --out talk.html
      robustdistiller listen reverb --model exp/student/student.ckpt

    The page is one file that opens offline. It has the same utterances clean and under each condition, with
    spectrograms and players. Speech, noise and rooms are the embedded ones unless others are given.

    \b
    With --model it also shows
      how far the hidden states move from those of clean speech, layer by layer
      of a student: how far its predictions are from its teacher's features of
      clean speech
      of a student in its run's folder: what its enhancement head makes of each
      version

    The head estimates magnitude spectra. Their sound is made with the phase of the corrupted speech.
    """
    from robustdistiller.acoustics import Condition
    from robustdistiller.acoustics.listening.page import listening_page, make_versions
    from robustdistiller.common.files import require_file_place, write_text
    from robustdistiller.eval.conditions.sources import Sources

    if teacher is not None and model is None:
        raise ValueError(f"--teacher {teacher} is for a student: give --model STUDENT, too")
    require_file_place(out)
    chosen = list(dict.fromkeys([Condition(), *map(Condition.parse, conditions)]))
    given = {"noise": noise, "rir": rir, "speech": speech, "music": music}
    sources = Sources().with_given({kind: paths or () for kind, paths in given.items()})
    corruptors = sources.corruptors(chosen, seed)
    waveforms = _speech(audio, utterances, seconds)
    versions = {name: make_versions(waveform, name, corruptors) for name, waveform in waveforms.items()}
    shown = {} if model is None else _ask(model, teacher, versions)
    path = write_text(out, listening_page(versions, **shown))
    typer.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


def _speech(audio, utterances: int, seconds: float) -> dict:
    """Waveforms at 16 kHz by name."""
    from robustdistiller.acoustics.audio.files import audio_info, read_audio
    from robustdistiller.acoustics.audio.listing import name_recordings
    from robustdistiller.common.audio import SAMPLE_RATE_HZ
    from robustdistiller.mini import data_dir
    from robustdistiller.mini.pack import sample_sentences

    if audio is None:
        spoken = sample_sentences(data_dir(), utterances)
        return {name: waveform[: round(seconds * SAMPLE_RATE_HZ)] for name, waveform in spoken.items()}
    found = {}
    for name, path in list(name_recordings(audio).items())[:utterances]:
        info = audio_info(path)
        found[name] = read_audio(path, num_frames=min(info.num_frames, max(1, round(seconds * info.sample_rate_hz))))
    return found


def _ask(model: str, teacher: str | None, versions: dict) -> dict:
    """What the page shows of a model: its distances, and notes; the head's spectra go into the versions."""
    from robustdistiller.pretrain.training.listening import Listener, distance_tables

    listener = Listener(model, teacher)
    return {"model": model, "distances": distance_tables(listener, versions), "notes": listener.notes}
