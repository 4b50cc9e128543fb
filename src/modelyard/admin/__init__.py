"""What operators see and do, as one table of operations: the REST admin API answers them, the console shows them.

Each is a plain function on a registry; its signature says what it takes, and so does the API's description. Whoever
reads files of this machine, such as recorded predictions, does so in the folders that the settings name.
"""
