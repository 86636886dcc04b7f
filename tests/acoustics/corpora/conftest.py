"""Corpora in their official layouts, as empty files."""

from pathlib import Path

import pytest

from robustdistiller.acoustics import corpus_pieces

ESC50 = "filename,fold,target,category,esc10,src_file,take"
TREES = {
    "musan": [
        *[f"noise/free-sound/noise-free-sound-{n:04d}.wav" for n in range(12)],
        "music/fma/music-fma-0000.wav",
        "speech/librivox/speech-librivox-0000.wav",
        "noise/free-sound/ANNOTATIONS",
    ],
    "urbansound8k": [
        "audio/fold1/101415-3-0-2.wav",
        "audio/fold1/7061-6-0-0.wav",
        "audio/fold9/500-2-0-1.wav",
        "audio/fold10/100795-3-0-0.wav",
        "audio/fold10/162134-9-1-0.wav",
        "metadata/UrbanSound8K.csv",
    ],
    "esc50": ["audio/1-100032-A-0.wav", "audio/5-103415-A-2.wav", "audio/4-1-A-10.wav", "meta/esc50.csv"],
    "fsd50k": [
        "FSD50K.dev_audio/63.wav",
        "FSD50K.dev_audio/64.wav",
        "FSD50K.eval_audio/37199.wav",
        "FSD50K.eval_audio/175151.wav",
        "FSD50K.ground_truth/dev.csv",
        "FSD50K.ground_truth/eval.csv",
    ],
    "demand": [f"{place}/ch{n:02d}.wav" for place in ("DKITCHEN", "TBUS", "PRESTO") for n in (1, 2, 16)],
    "wham": ["tr/01aa.wav", "cv/02bb.wav", "tt/03cc.wav", "metadata/noise_meta_tt.csv"],
    "chime": [f"BGD_150203_{n:03d}_{place}.CH{c}.wav" for n in range(6) for place in ("BUS", "CAF") for c in (1, 2, 5)],
    "openslr28": [
        *[f"simulated_rirs/smallroom/Room{n:03d}/Room{n:03d}-{k:05d}.wav" for n in range(1, 16) for k in (1, 2)],
        "simulated_rirs/smallroom/rir_list",
        "real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_far_angla.wav",
        "real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav",
        "real_rirs_isotropic_noises/rir_list",
        "real_rirs_isotropic_noises/noise_list",
        "pointsource_noises/noise-free-sound-0000.wav",
    ],
    "dns": [
        "SLR26/simulated_rirs_48k/largeroom/Room001/Room001-00001.wav",
        "SLR28/RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav",
        "SLR28/RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_far_angla.wav",
        "SLR28/RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav",
        "RIR_table_simple.csv",
    ],
    "but_reverbdb": [
        f"{room}/MicID01/SpkID{speaker:02d}_20170906_S/{mic:02d}/{file}"
        for room in ("VUT_FIT_L207", "VUT_FIT_L212", "Hotel_SkalskyDvur_Room112")
        for speaker in (1, 2)
        for mic in (1, 31)
        for file in (
            "RIR/IR_sweep_15s_45Hzto22kHz_FS16kHz.v00.wav",
            "silence/silence.v00.wav",
            "english/LibriSpeech/test-clean/1089/134686/1089-134686-0000.v00.wav",
            "mic_meta.txt",
        )
    ],
    "librispeech": [
        *[f"train-clean-100/{speaker}/7/{speaker}-7-0000.flac" for speaker in (19, 26)],
        "dev-clean/84/1/84-1-0000.flac",
        "test-other/367/2/367-2-0000.flac",
        "test-other/367/2/367-2.trans.txt",
        "SPEAKERS.TXT",
    ],
    "folder": ["rain/1.wav", "rain/2.flac", "wind.wav", "notes.txt"],
}
TEXTS = {
    "meta/esc50.csv": "\n".join(
        [
            ESC50,
            "1-100032-A-0.wav,1,0,dog,True,100032,A",
            "5-103415-A-2.wav,5,2,pig,False,103415,A",
            "4-1-A-10.wav,4,10,rain,True,1,A",
        ]
    ),
    "FSD50K.ground_truth/dev.csv": 'fname,labels,mids,split\n63,"Rain,Water",m,train\n64,"Speech,Human_voice",m,val\n',
    "FSD50K.ground_truth/eval.csv": 'fname,labels,mids\n37199,"Engine,Vehicle",m\n175151,"Speech,Human_voice",m\n',
    "real_rirs_isotropic_noises/rir_list": (
        "--rir-id 1 --room-id RVB2014_large1 RIRS_NOISES/real_rirs_isotropic_noises/"
        "RVB2014_type1_rir_largeroom1_far_angla.wav\n"
    ),
    "real_rirs_isotropic_noises/noise_list": (
        "--noise-id 1 RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav\n"
    ),
}


@pytest.fixture
def plant(tmp_path):
    def build(kind: str, folder: str = ".") -> Path:
        for name in TREES[kind]:
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(TEXTS.get(name, ""))
        return tmp_path / folder

    return build


def names(*arguments, **options) -> set[str]:
    return {piece.name for piece in corpus_pieces(*arguments, **options)}
