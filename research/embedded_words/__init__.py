"""Words cut from the shipped prompts: how `mini/data/words.tsv` was made.

`python -m research.embedded_words align` places the words of the prompts' texts in their audio and checks each;
`python -m research.embedded_words choose` makes the shipped table of them.
"""
