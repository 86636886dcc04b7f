"""How the numbers in `results/` and the mini teacher were made. It is not installed; it runs from the repository root.

python -m research.bench
python -m research.recipe_study --pool FOLDER --out results/study
python -m research.mini_teacher --pool FOLDER --out FOLDER
"""
