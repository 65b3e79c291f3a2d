"""The words that documents are made of: short, common, and no word in two lists.

A value can then never be mistaken for a key, and a byte-level BPE of modest size holds nearly every
word as one token.
"""

ADJECTIVES = tuple(
    """
    old new red blue green grey pale dark warm cold dry wet tall low deep thin wide long slow quick
    soft hard loud calm bold shy wild tame rich poor clean plain sharp blunt bright dim fresh stale
    sweet sour round flat
    """.split()
)
NOUNS = tuple(
    """
    harbor bridge tower mill forge well gate cave barn dock fort inn lodge mine park pier pond port
    road shed shop tent vault wharf yard chapel camp canal farm field garden hall hill house lake
    market museum office palace quarry river school stable station street temple theater tunnel
    """.split()
)
NAMES = tuple(
    """
    Ada Ben Cora Dan Eva Finn Gus Hana Ian Jill Kim Leo Mia Ned Ola Pia Quin Rosa Sam Tess Uma Vera
    Walt Xena Yan Zoe Amos Beth Carl Dora Emil Fay
    """.split()
)
VALUES = tuple(
    """
    iron gold lead tin zinc coal salt sand clay glass paper wool silk linen cotton leather rope wax
    oil tar ink milk rice corn wheat oats beans peas nuts figs plums pears dates limes mint sage
    honey butter cheese bread sugar pepper ginger tea wine beer rum soap lamps pots pans cups plates
    knives forks spoons nails bolts wires pipes tiles bricks planks drums bells flutes
    """.split()
)
VARIABLES = tuple(
    """
    alpha beta gamma delta kappa sigma omega theta total count index start stop limit size width
    height depth speed score level rate price cost left right first last
    """.split()
)
# An attribute of a "single" fact appears once in a document, one of "many" facts over and over.
SINGLE_ATTRIBUTES = ("secret", "password", "motto", "prize", "signal", "treasure")
MANY_ATTRIBUTES = ("cargo", "tax", "gift", "supply")

VERBS = ("stands", "lies", "opens", "closes", "waits", "sleeps")
PLACES = ("near", "behind", "below", "above", "beside", "beyond")
TIMES = ("today", "at night", "in spring", "in winter", "every week", "most days")
