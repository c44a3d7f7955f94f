"""Simulated labelling on data with known masks: how much each strategy saves, with the code that runs in production.

`polygons` counts the clicks that masks take, `data` holds images and masks in memory, `experiment` repeats training
and ranking as the product does, `results` is the file of rows, `statistics` compares them and `report` shows them.
"""
