"""One source in one line: paths with commas stay paths, wrong options are refused."""

import subprocess
import sys

import pytest

from robustdistiller.acoustics import SourceSpec, root_weights


def test_a_path_may_hold_commas_equals_signs_and_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("NOISES", "/noises")
    spec = SourceSpec.parse("$NOISES/rain, heavy,split=test,only=a+b")
    assert (spec.path, spec.split, spec.only) == ("/noises/rain, heavy", "test", ("a", "b"))
    assert SourceSpec.parse("/data/a,b").path == "/data/a,b"
    assert SourceSpec.parse("/data/n,snr=5/rain,split=dev") == SourceSpec("/data/n,snr=5/rain", split="dev")
    folder = tmp_path / "rain,snr=5"
    folder.mkdir()  # what exists is a path
    assert SourceSpec.parse(f"{folder},only=a") == SourceSpec(str(folder), only=("a",))
    assert SourceSpec.parse("/data/x, kind=wham, without=a") == SourceSpec("/data/x", "wham", without=("a",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/data/x,splt=test", r"unknown option 'splt' in '/data/x,splt=test'; did you mean 'split'\?"),
        ("/data/x,only=a,wihtout=b", "unknown option 'wihtout' .*did you mean 'without'"),
        ("/data/x,zzz=1", "unknown option 'zzz' .*known: kind, split, only, without, weight"),
        ("/data/x,only=a,only=b", r"option 'only' is given twice in .*expected only=A\+B"),
        ("/data/x,split=", "option 'split' has no value in .*expected split=test"),
        ("/data/x,only=a,b", r"'/data/x,only=a,b' has a comma inside an option; expected PATH,only=A\+B"),
        ("only=real", r"'only=real' has no path before its options; expected PATH,only=A\+B, in quotes"),
    ],
)
def test_wrong_options_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        SourceSpec.parse(text)


def test_a_folder_of_any_kind_gives_any_purpose_and_only_what_was_asked_for(tmp_path):
    for name in ("train/a.wav", "test/b.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for purpose in ("noise", "rir", "speech", "music"):
        spec = SourceSpec.parse(str(tmp_path))
        assert [piece.name for piece in spec.pieces(purpose, split="training")] == ["train/a.wav"]
        assert len(spec.pieces(purpose)) == 2
        told = SourceSpec.parse(f"{tmp_path},split=test")
        assert [piece.name for piece in told.pieces(purpose, split="training")] == ["test/b.wav"]


def test_corpora_need_no_pytorch():
    code = "import sys; from robustdistiller.acoustics import SourceSpec as _; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_weights_are_numbers_that_all_or_none_have(tmp_path):
    one, other = SourceSpec.parse("/data/musan,weight=1"), SourceSpec.parse("/data/wham_noise,split=train,weight=0.5")
    assert root_weights([one, other]) == [1.0, 0.5] and root_weights([SourceSpec("/data/x")] * 2) is None
    assert other.title == "wham_noise (split=train, weight=0.5)"
    assert SourceSpec.from_value({"path": "/data/x", "weight": 2}, "noise").weight == 2.0
    with pytest.raises(ValueError, match=r"/data/x has no weight and others beside it have one; give every path one"):
        root_weights([one, SourceSpec("/data/x")])
    for wrong, message in (("0", "must be above 0"), ("-1", "above 0"), ("nan", "above 0"), ("a", "found 'a'")):
        with pytest.raises(ValueError, match=message):
            SourceSpec.parse(f"/data/x,weight={wrong}")
