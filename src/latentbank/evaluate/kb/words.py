"""The words of synthetic knowledge bases: parts of names, properties and values.

Every fourth start of a name, family name and property is held out of training. Knows words only.
"""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ACTIONS", "ADJECTIVES", "CHOICES", "ENDINGS", "FAMILY_NAMES", "GIVEN_NAMES", "KINDS", "NOUNS",
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
        "patron", "founder", "director", "architect",
        "inventor", "owner", "chief engineer", "mayor",
        "legal adviser", "manager", "author", "main sponsor",
        "treasurer", "head gardener", "leader name", "creator",
        "producer", "contact person", "spokesperson", "operator",
        "discoverer", "supplier", "spouse", "senior editor",
        "first president", "composer",
    ),
    "number": (
        "depth", "population", "length", "number of employees",
        "top speed", "capacity", "height", "annual budget",
        "number of members", "weight", "price", "number of rooms",
        "elevation", "registration number", "area", "postal code",
        "number of pages", "serial number", "phone number", "revenue",
        "warranty period", "runway length", "floor count",
    ),
    "date": (
        "anniversary", "opening date", "founding date", "birth date",
        "launch date", "date of the first concert", "closing date", "date of the great fire",
        "date of death", "completion date", "date of the last inspection", "release date",
        "renewal date", "delivery date", "wedding date",
    ),
    "place": (
        "home port", "headquarters", "birthplace", "location",
        "sister city", "main office", "place of birth", "burial place",
        "place of death", "training ground", "production site", "country",
        "alma mater", "place of origin", "warehouse", "city served",
        "summer residence", "capital",
    ),
    "description": (
        "objective", "purpose", "description", "main activity",
        "nickname", "mission", "occupation", "best known work",
        "genre", "speciality", "motto", "colour",
        "current project", "background", "role", "status",
        "nationality", "material", "food", "language", "opening hours",
    ),
}  # fmt: skip


def _by_property(lines: str) -> dict[str, tuple[str, ...]]:
    rows = (line.partition(":") for line in lines.strip().splitlines())
    return {name: tuple(part.strip() for part in rest.split(",")) for name, _, rest in rows}


CHOICES: Mapping[str, tuple[str, ...]] = _by_property("""
occupation: engineer, politician, painter, professional chess player, nurse, test pilot, carpenter, poet, film director, sailor, judge, marine biologist, tailor, guitarist, bookbinder
genre: science fiction, opera, jazz, crime novel, documentary, folk music, historical drama, comedy, heavy metal, fantasy, travel writing, puppet theatre
colour: dark green, scarlet, white, navy blue, black and yellow, light grey, copper, orange, silver, violet
material: oak, cast iron, stainless steel, red brick, glass fibre, granite, brass, linen, concrete, bamboo
status: active, retired, under construction, closed, planned, on loan, in service, sold, awaiting repair
food: fish soup, Italian, dumplings, vegetarian curry, roast lamb, sushi, Alpine cheese, pancakes, English, barbecue
language: Estonian, Portuguese, Swahili, Welsh, Korean, Finnish and Swedish, Arabic, Danish, Quechua, Latin
nationality: Norwegian, Kenyan, Brazilian, Dutch, Japanese, Irish, Turkish, Canadian, Ghanaian, Polish
opening hours: 9 to 17, Monday to Friday, daily from 8 am, 10:30 to 18:00, weekends only, 7 am to noon, Tuesday to Sunday, round the clock
country: Estonia, Peru, Morocco, Vietnam, Scotland, New Zealand, Chile, Jordan, Belgium, Kenya, South Korea
alma mater: University of Graz, Trinity College, Lund University, Kyoto Technical School, Military Academy of Lima, Royal College of Music
price: 4718 euros, 12.50 dollars, 96 pounds, 1,250 euros, 349 francs, 7.99 euros, 62 dollars, 18,400 yen, 230 euros, 5,600 crowns
phone number: +49 30 5521, 0171 448 902, 555-0142, +1 415 555 7730, 020 7946 0321, ext. 4471, +420 541 887
warranty period: 24 months, 3 years, 90 days, 18 months, 5 years, 12 months, 2 years
""")
"""Property → values drawn for it half of the time, in place of those of its class."""
