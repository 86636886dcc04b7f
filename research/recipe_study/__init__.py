"""The recipe study: which recipe makes the best student of the mini teacher, under which condition, at what cost.

python -m research.recipe_study --pool FOLDER --out results/study
"""
