"""Words and voices at once: joint fine-tuning against one task alone, a trained encoder against a frozen one.

    python -m research.multitask_study --pool POOL --student student.ckpt

As in arXiv 2210.16611, at the size of the study pool: a student fine-tuned for 30 words and for telling voices apart,
whose test voices are in no training set. `arms` says what is compared, `__main__` runs it and writes the page.
"""
