"""How the numbers in `results/` and the mini teacher were made. It is not installed; it runs from the repository root.

python -m research.bench
python -m research.recipe_study --pool FOLDER --out results/study
python -m research.mini_models teacher --from WHISPER --pool FOLDER --out FOLDER
python -m research.embedded_words ...      # cuts the words out of the shipped prompts
python -m research.embedded_noise ...      # cuts the continuous noise out of packages
"""
