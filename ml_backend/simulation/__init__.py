"""Simulated labelling on data with known masks: how much each strategy saves, with the code that runs in production.

`options` reads what a person asks for into a `plan`, `checks` whether it fits the data, `processes` runs it.
`experiment` is a run: it trains (`training`), chooses (`choosing`) and labels (`labels`) round after round. `results`
is the file of rows, and `report` compares them.
"""
