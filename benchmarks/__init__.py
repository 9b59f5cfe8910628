"""What Headrace must reach, measured beside what it is compared with; ``make bench`` runs it.

Every part measures Headrace and its reference in the same run, in interleaved rounds, and gives
rows of a table.  Only ratios of such a run mean something: absolute figures belong to one machine.
"""
