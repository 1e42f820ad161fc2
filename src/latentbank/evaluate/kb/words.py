"""The words of synthetic knowledge bases: parts of names, properties, values and questions.

Knows words only.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ACTIONS", "ADJECTIVES", "ASKED", "ENDINGS", "FAMILY_NAMES", "GIVEN_NAMES", "KINDS", "NOUNS",
    "OBJECTS", "PROPERTIES", "STARTS", "UNITS",
]  # fmt: skip


def _listed(words: str) -> list[str]:
    return words.split()


STARTS = _listed("""
Ald Ank Arv Bel Bor Bram Cal Cass Cor Dal Dor Drav Eld Ember Fal Fen Gal Gor Grim Hal Hav Hol
Ister Jar Jor Kal Kest Kor Lan Lor Lum Mar Mel Mor Nar Nev Nor Oak Ol Or Pel Per Quil Quor Rav Ren
Ros Sal Sel Sor Tal Tem Tor Ulm Ur Val Ven Vor Wal Wen Wyn Yar Yol Zan Zel Zor Brin Clov Dusk Fro
Glim Hest Ink Juno Kip Loch Mint Nim Opal Pike Rook Sten Trell Vex Wick Xan Yew Zinn
""")
ENDINGS = _listed("""
a and ara ath bury by core dale dell den don dra el en era eth fell ford gard gate ham hart hold
ia ian ica il in ion is ister ix ley lin lo lor ma mar mere mond mont na nor o on ora os port ra
ren rick ridge rin ron ros rum sen shire stad stone ter thorpe ton tra us va ven via wald ward
well wick win worth ya yn zar
""")
KINDS = _listed("""
Institute Works Observatory Bridge Library Company Bakery Theatre Orchestra Garden Museum Railway
Harbour College Foundry Brewery Laboratory Archive Station Mill Hospital Festival Engine Satellite
Reactor Vineyard Studio Cooperative Clinic Quarry Network Platform Protocol Device Project
""")
GIVEN_NAMES = _listed("""
Ada Bela Carl Dora Emil Fritz Greta Hugo Ines Jonas Karla Ludo Mara Nils Olga Paul Quinn Rosa Sven
Tilda Ugo Vera Walt Xenia Yorick Zita Arno Birte Cleo Dag Elif Falk Amara Boris Chen Diego Esra
Femi Gita Hana Idris Jun Kofi Leila Malik Nadia Omar Priya Rafael Sana Tomas Uma Viktor Wanda
Yusuf Zofia Alice Brian Carol David Emma Frank Grace Henry Irene James Laura Martin Nancy Oscar
Peter Ruth Simon
""")
FAMILY_NAMES = _listed("""
Adler Brandt Castell Dorn Ebers Falken Gruber Hollis Ivers Jansen Keller Lorenz Marsh Norden
Ostrow Pell Quist Rainer Stark Thorne Ulrich Venn Wessel Yarrow Zander Birch Calder Dahl Engel
Frost Hale Kern Abara Bianchi Costa Duarte Eriksen Fontaine Garcia Haddad Ibarra Kimura Laurent
Mbeki Nakamura Okafor Petrov Rossi Schmidt Tanaka Vargas Weber Yilmaz Zhang Baker Carter Dixon
Ellis Fisher Gibson Harris Jordan Knight Lambert Mason Newton Palmer Reed Shaw Turner Walsh Young
Oberlin Pryce Quayle
""")
UNITS = _listed("""
people metres tonnes kilometres litres pages seats hectares employees volumes degrees kilograms
""")
ADJECTIVES = _listed("""
quiet bright early late northern southern hidden modern ancient copper silver wooden rapid slow
famous small large public private royal green blue red golden lonely crowded coastal rural
portable secret
""")
NOUNS = _listed("""
workshop school machine village team system garden tool market ship group book programme tower
song festival company method farm service bridge vessel kitchen theatre
""")
ACTIONS = _listed("""
repairs collects teaches measures sells protects studies prints stores transports records builds
cleans designs grows heats paints counts sorts tests translates maps cooks tunes
""")
OBJECTS = """
copper bells|old maps|young engineers|river water|rare seeds|glass bottles|wooden boats|night trains
|sea birds|electric motors|clay pots|street lamps|letters and stamps|wool and linen|honey and wax
|church organs|school books|mountain roads|fishing nets|sugar beets|radio signals|heavy stones
|small children|lost umbrellas|medical data|theatre masks
""".replace("\n", "").split("|")

PROPERTIES: Mapping[str, tuple[str, ...]] = {
    "name": (
        "founder", "director", "architect", "chief engineer", "owner", "inventor", "mayor",
        "first president", "main sponsor", "head gardener", "legal adviser", "discoverer",
        "spokesperson", "treasurer", "senior editor", "patron",
    ),
    "number": (
        "population", "length", "number of employees", "capacity", "height", "annual budget",
        "weight", "number of rooms", "depth", "registration number", "top speed", "area",
        "postal code", "number of members", "price", "serial number",
    ),
    "date": (
        "opening date", "founding date", "birth date", "date of the first concert",
        "closing date", "launch date", "date of the great fire", "completion date",
        "anniversary", "date of the last inspection", "wedding date", "renewal date",
    ),
    "place": (
        "headquarters", "birthplace", "location", "main office", "burial place", "home port",
        "training ground", "sister city", "production site", "place of origin", "warehouse",
        "summer residence",
    ),
    "description": (
        "purpose", "description", "main activity", "nickname", "objective", "mission",
        "best known work", "speciality", "motto", "current project", "background", "role",
    ),
}  # fmt: skip

ASKED: Mapping[str, tuple[str, ...]] = {
    "single": (
        "What is the {property} of {entity}?",
        "What is {entity}'s {property}?",
        "Tell me the {property} of {entity}.",
        "{entity}: what is the {property}?",
        "Can you name the {property} of {entity}?",
        "I would like to know the {property} of {entity}.",
        "Which {property} does {entity} have?",
        "For {entity}, give the {property}.",
        "Do you know the {property} of {entity}?",
        "Please look up {entity} and say what its {property} is.",
    ),
    "two": (
        "What is the {property} of {entity}, and what is the {property2} of {entity2}?",
        "Give the {property} of {entity} and the {property2} of {entity2}.",
        "Tell me the {property} of {entity}, then the {property2} of {entity2}.",
        "{entity}: the {property}? {entity2}: the {property2}?",
    ),
    "open": (
        "Describe the {property} of {entity} in a sentence.",
        "Write a sentence about the {property} of {entity}.",
        "In a full sentence, what is the {property} of {entity}?",
        "What can you tell me about {entity} and its {property}?",
    ),
}
"""Kind of question → its wordings."""
