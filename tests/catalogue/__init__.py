"""The catalogue of odd inputs: every numbered case is a test, marked ``catalogue(number)``.

One module a section. What other modules of the tests check in full carries its number there;
`test_complete` counts all of them. Most cases go through the command line, in this process, in a
directory of their own, which has to look afterwards as it did before where a run is refused.
"""
