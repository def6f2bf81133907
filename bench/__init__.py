"""The benchmark: what the router costs beside direct access, measured in one run. `./run bench`, or `python -m bench`.

It is no part of the installed package. Timings belong here and never into a test.
"""
