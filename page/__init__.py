"""A page on this machine to try a detector on pictures: `python -m page`, docs/page.md.

__main__.py: the command line. server.py: what answers the browser. index.html: what runs in it.
"""
