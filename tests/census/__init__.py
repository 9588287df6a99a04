"""The census: change every kind of recorded leaf once, and see whether anything notices.

A *leaf* is a value at a place of an answer: a cell of a row, an attribute of an element, an option
of a command line, a line of a text. Leaves of one layer, one kind of question and one general path
are one *kind of leaf*. A *mutation* changes one leaf of a running guest in all answers that repeat
it, and the whole analysis runs again. The *verdict* is what noticed: a check, the report's text,
or nothing. What nothing notices is *declared* with its reason, or it is a hole.

    python -m tests.census                         all recordings; writes result.tsv
    python -m tests.census --verify                only what was noticed before, as result.tsv has it
    python -m tests.census --layer cinder          one layer
    python -m tests.census --leaf 'GET /v3/volumes/detail|.volumes[].size'
"""
