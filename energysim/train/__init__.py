"""The reference trainer in NumPy: accuracy of the networks and masks whose costs are counted.

It reads the same networks and the same masks as the cost model and knows nothing else of it.
"""
