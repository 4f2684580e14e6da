"""The ground and its land cover, by rules that any geometry backend can use: sets of land classes,
filters of bounded reach that give the same bits in any window, smooth noise of the place, and the
ground itself.
"""
