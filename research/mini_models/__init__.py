"""The shipped models, made by this package's own `distill`: the mini teacher from Whisper's encoder, a student from it.

    python -m research.mini_models teacher --from WHISPER --pool FOLDER --out FOLDER
    python -m research.mini_models student --pool FOLDER --out FOLDER

`teacher.yaml` and `student.yaml` say how.
"""
