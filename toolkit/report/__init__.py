"""A run's report: its manifest, and nothing else, turned into what people read.

    view.py     questions put to a manifest (which number, against which baseline, what each stage did)
    numbers.py  numbers to words: digits, units, signs
    text.py     the last lines on the terminal
    html.py     one self-contained page, from overview.py, details.py, charts.py and style.py

Everything here is a pure function: the same manifest gives the same bytes.
"""
