"""Looking back at a run: its history, drawn as a page, a picture, or in a terminal.

`history` reads a run's own records. `charts` decides what is drawn of them, `pictures` and `terminal` where,
`page` what is said beside it. `scales` is the arithmetic that they share.
"""
