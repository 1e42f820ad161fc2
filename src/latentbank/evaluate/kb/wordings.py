"""How questions about a triple are worded: for any property, for a class of values, for one property.

Every fourth wording of a list, from the first on, is held out of training. Knows words only.
"""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ASKED", "BY_CLASS", "BY_PROPERTY"]


def _listed(lines: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in lines.strip().splitlines())


ASKED: Mapping[str, tuple[str, ...]] = {
    "single": _listed("""
        I need the {property} of {entity}.
        What is the {property} of {entity}?
        What is {entity}'s {property}?
        Tell me the {property} of {entity}.
        What {property} is given for {entity}?
        {entity}: what is the {property}?
        Can you name the {property} of {entity}?
        I would like to know the {property} of {entity}.
        Could you check what the {property} of {entity} is?
        Which {property} does {entity} have?
        For {entity}, give the {property}.
        Do you know the {property} of {entity}?
        What do we have as {property} for {entity}?
        Please look up {entity} and say what its {property} is.
        {property} of {entity}?
        {entity} {property}
        As for {entity}, what {property} does it have?
        Give me {entity}'s {property}.
        What is the {property} for {entity}?
        What's the {property} of {entity}?
        How do the records state the {property} of {entity}?
        What was the {property} of {entity}?
        What {property} does {entity} have?
        {entity}'s {property}?
    """),
    "two": _listed("""
        I need the {property} of {entity} and the {property2} of {entity2}.
        What is the {property} of {entity}, and what is the {property2} of {entity2}?
        Give the {property} of {entity} and the {property2} of {entity2}.
        Tell me the {property} of {entity}, then the {property2} of {entity2}.
        What are the {property} of {entity} and the {property2} of {entity2}?
        {entity}: the {property}? {entity2}: the {property2}?
    """),
    "open": _listed("""
        Answer in a sentence: what is the {property} of {entity}?
        Describe the {property} of {entity} in a sentence.
        Write a sentence about the {property} of {entity}.
        In a full sentence, what is the {property} of {entity}?
        Write one sentence that states the {property} of {entity}.
        What can you tell me about {entity} and its {property}?
    """),
}
"""Kind of question → its wordings for any property."""

BY_CLASS: Mapping[str, tuple[str, ...]] = {
    "name": _listed("""
        What is the name of the {property} of {entity}?
        Who is the {property} of {entity}?
        Who is {entity}'s {property}?
        Who was the {property} of {entity}?
        Who is named as {property} of {entity}?
        Name the {property} of {entity}.
    """),
    "number": _listed("""
        What figure is given for the {property} of {entity}?
        How much is the {property} of {entity}?
        How large is the {property} of {entity}?
        What number is the {property} of {entity}?
    """),
    "date": _listed("""
        On what day is the {property} of {entity}?
        When is the {property} of {entity}?
        When was the {property} of {entity}?
        What day is the {property} of {entity}?
    """),
    "place": _listed("""
        In which place is the {property} of {entity}?
        Where is the {property} of {entity}?
        Where is {entity}'s {property}?
        In what town is the {property} of {entity}?
    """),
    "description": _listed("""
        How would you describe the {property} of {entity}?
        What is known about the {property} of {entity}?
        How is the {property} of {entity} described?
        What does the knowledge base say on the {property} of {entity}?
    """),
}
"""Class of value → further wordings of questions about one triple."""

_LINES = """
founder: By whom was {e} started? | Who founded {e}? | Who started {e}? | Who set up {e}? | Whose idea was {e} in the first place? | Who established {e}? | {e} was founded by whom?
director: Who is in charge of {e}? | Who directs {e}? | Who runs {e}? | Who heads {e}?
architect: Who drew the plans of {e}? | Who designed the building of {e}? | Who was {e} designed by? | Which architect built {e}?
chief engineer: Who is the top engineer at {e}? | Who leads the engineers of {e}? | Which engineer is in charge of {e}?
owner: To whom does {e} belong? | Who owns {e}? | {e} is owned by whom? | Who is {e} owned by?
inventor: Whose invention is {e}? | Who invented {e}? | By whom was {e} invented? | Who came up with {e}?
mayor: Who governs {e} as mayor? | Which mayor does {e} have? | Who is mayor in {e}?
first president: Who presided over {e} first? | Who was {e}'s first president? | Which president did {e} have first?
main sponsor: Who pays for {e}? | Who sponsors {e}? | By whom is {e} mainly sponsored?
head gardener: Who is in charge of the garden of {e}? | Who leads the gardeners of {e}? | Which gardener is the head at {e}?
legal adviser: Which lawyer does {e} rely on? | Who advises {e} in legal matters? | Who gives {e} legal advice?
discoverer: By whom was {e} first found? | Who discovered {e}? | {e} was discovered by whom?
spokesperson: Who talks to the press for {e}? | Who speaks for {e}? | Who answers the press on behalf of {e}?
treasurer: Who looks after the money of {e}? | Who keeps the accounts of {e}? | Who manages {e}'s money?
senior editor: Who leads the editing of {e}? | Who edits {e}? | Which editor is in charge at {e}?
patron: Under whose patronage is {e}? | Who supports {e} as patron? | Which patron does {e} have?
author: Whose work is {e}? | Who wrote {e}? | By whom was {e} written? | Who is {e} by?
manager: Who is responsible for {e}? | Who manages {e}? | By whom is {e} managed? | Which manager does {e} have?
leader name: Who is at the head of {e}? | Who leads {e}? | Who is the leader of {e}? | Under whom is {e} led?
creator: Who thought up {e}? | Who created {e}? | By whom was {e} made? | Who made {e}?
operator: By whom is {e} operated? | Who operates {e}? | Which operator works {e}?
spouse: Who is the husband or wife of {e}? | Who is {e} married to? | Whom did {e} marry?
producer: By whom was {e} produced? | Who produced {e}? | Which producer made {e}?
composer: Who is the music of {e} by? | Who composed {e}? | Who wrote the music of {e}?
contact person: Whom do I call about {e}? | Who is the contact for {e}? | Whom should I ask about {e}? | Who can I contact at {e}?
supplier: From whom do we buy {e}? | Who supplies {e}? | Who delivers {e}?
population: How many inhabitants does {e} have? | How many people live in {e}? | How big is the population of {e}? | How many live in {e}?
length: What distance does {e} measure from end to end? | How long is {e}? | What does {e} measure in length?
number of employees: How many work for {e}? | How many people work at {e}? | How many employees does {e} have? | How many people does {e} employ? | How big is the staff of {e}? | How many workers are employed by {e}?
capacity: How much fits into {e}? | How much can {e} hold? | How many can {e} take? | What can {e} hold at most?
height: How far up does {e} reach? | How high is {e}? | How tall is {e}?
annual budget: How much does {e} spend in a year? | How much money does {e} have each year? | What budget does {e} have per year?
weight: How much does {e} weigh? | How heavy is {e}? | What does {e} weigh?
number of rooms: How many rooms are in {e}? | How many rooms does {e} have? | How many rooms are there in {e}?
depth: How far down does {e} go? | How deep is {e}? | What depth does {e} have?
registration number: Under what number is {e} registered? | What number is {e} registered under? | Which registration does {e} have?
top speed: What is the fastest that {e} goes? | How fast is {e}? | How fast can {e} go?
area: How much land does {e} cover? | How large is {e}? | What area does {e} cover?
postal code: Which postcode has {e}? | What is the zip code of {e}? | What postcode does {e} have?
number of members: How many people belong to {e}? | How many members does {e} have? | How many are members of {e}?
price: What do I have to pay for {e}? | How much does {e} cost? | What does {e} cost? | How much is {e}? | How expensive is {e}? | What is the cost of {e}?
serial number: Which serial does {e} carry? | What number is stamped on {e}? | What is {e}'s serial no.?
elevation: How high above the sea is {e}? | How high does {e} lie? | At what height above sea level is {e}?
runway length: How long are the runways of {e}? | How long is the runway of {e}? | How far does the runway of {e} run?
number of pages: How thick is {e} in pages? | How many pages has {e}? | How many pages does {e} have?
floor count: How many storeys are in {e}? | How many floors does {e} have? | How many storeys has {e}?
phone number: At what number do I reach {e}? | How can I phone {e}? | What number do I dial for {e}? | What is the telephone number of {e}?
revenue: How much money does {e} make? | How much does {e} earn? | What are the sales of {e}? | What turnover does {e} have?
warranty period: For how long is {e} under warranty? | How long is the warranty of {e}? | How long does the guarantee on {e} last?
opening date: On what day did {e} open? | When did {e} open? | When was {e} opened? | Since when is {e} open?
founding date: On what date was {e} set up? | When was {e} founded? | When was {e} established? | When did {e} start?
birth date: On what day was {e} born? | When was {e} born? | When is {e}'s birthday? | What date was {e} born on?
date of the first concert: When did {e} play for the first time? | When was the first concert of {e}? | When did {e} first give a concert?
closing date: On what day did {e} close? | When did {e} close? | When was {e} closed?
launch date: On what day did {e} start? | When was {e} launched? | When did {e} launch? | When did {e} come out?
date of the great fire: When did {e} burn? | When was the great fire of {e}? | When did the great fire of {e} happen?
completion date: When was the work on {e} done? | When was {e} completed? | When was {e} finished?
anniversary: On what day does {e} celebrate? | When is the anniversary of {e}? | When does {e} have its anniversary?
date of the last inspection: When did somebody last check {e}? | When was {e} last inspected? | When did the last inspection of {e} take place?
wedding date: On what day did {e} marry? | When did {e} marry? | When was the wedding of {e}?
renewal date: When does {e} have to be renewed? | When is {e} renewed? | When is the renewal of {e} due?
date of death: On what day did {e} die? | When did {e} die? | When did {e} pass away?
release date: On what day did {e} come out? | When was {e} released? | When was {e} published?
delivery date: On what day does {e} arrive? | When is {e} delivered? | When will {e} be delivered?
headquarters: In what place does {e} have its seat? | Where is {e} based? | Where is {e} headquartered? | Where does {e} have its headquarters? | In which city is {e} run from? | Where are the headquarters of {e}?
place of birth: In what city was {e} born? | Where was {e} born? | Where does {e} come from by birth? | In which town was {e} born? 
birthplace: In what city was {e} born? | Where was {e} born? | In which town was {e} born? | Which place was {e} born in?
location: In what place do I find {e}? | Where is {e}? | Where is {e} located? | Where can I find {e}? | At what place is {e} to be found? | Where does {e} lie?
main office: In what town does {e} have its office? | Where is the office of {e}? | Where does {e} have its main office?
burial place: In what place does {e} rest? | Where is {e} buried? | Where was {e} buried?
home port: To what port does {e} return? | Which port is the home of {e}? | In which port is {e} at home?
training ground: In what place does {e} practise? | Where does {e} train? | On what ground does {e} train?
sister city: With which place is {e} twinned? | Which city is twinned with {e}? | What is {e}'s twin town?
production site: In what place is {e} built? | Where is {e} made? | Where is {e} produced? | Where is {e} manufactured?
place of origin: From where does {e} originate? | Where does {e} come from? | Where is {e} from? | What is the origin of {e}?
warehouse: In what place are the goods of {e} kept? | Where is {e} stored? | Where does {e} have its warehouse?
summer residence: In what place does {e} spend the summer? | Where does {e} live in summer? | Where is {e} in summer?
place of death: In what place did {e} die? | Where did {e} die? | Where did {e} pass away?
capital: Which city governs {e}? | Which city is the capital of {e}? | What capital does {e} have?
city served: Which town do people reach by {e}? | Which city does {e} serve? | What city is served by {e}?
alma mater: At what school did {e} study? | Where did {e} study? | Where was {e} educated? | Where did {e} graduate?
country: In which country do I find {e}? | In what country is {e}? | Which country is {e} in? | What country does {e} belong to?
purpose: For what reason does {e} exist? | What is {e} for? | What does {e} serve for?
description: In short, what would you call {e}? | What is {e}? | How is {e} described? | Describe {e}.
main activity: With what is {e} mostly busy? | What does {e} do? | What does {e} mainly do?
nickname: Under what other name do people know {e}? | What do people call {e}? | What is {e} also called?
objective: What is {e} aiming at? | What does {e} want to reach? | What is the goal of {e}? | What is {e}'s aim?
mission: What is {e} there to do? | What has {e} set out to do? | What mission does {e} follow?
best known work: What made {e} famous? | What is {e} best known for? | What is {e} famous for?
speciality: In what field is {e} an expert? | What does {e} specialise in? | What is {e} special for?
motto: Under what words does {e} stand? | What motto does {e} have? | What does {e} say as its motto?
current project: With what is {e} busy now? | What is {e} working on? | What does {e} work on at present?
background: What came before for {e}? | What is known of {e}'s background? | Where does {e} come from professionally?
role: What part does {e} play? | What role does {e} have? | What does {e} do in its role?
occupation: How does {e} earn a living? | What does {e} do for a living? | What is {e}'s job? | What work does {e} do? | What profession does {e} have? | What is the job of {e}?
genre: To what genre does {e} belong? | What kind of work is {e}? | What genre is {e}? | Which genre is {e} in?
colour: In what colour is {e} painted? | What colour is {e}? | Which colour does {e} have?
material: Out of what is {e} built? | What is {e} made of? | What is {e} made from? | Of what material is {e}?
status: How do things stand with {e}? | What state is {e} in? | Is {e} still active?
food: What can I eat at {e}? | What food does {e} serve? | What kind of food does {e} offer?
language: In what tongue do they speak in {e}? | What language is spoken in {e}? | Which language does {e} use?
nationality: Of what country is {e} a citizen? | What nationality does {e} have? | Which nationality is {e}?
opening hours: At what time can I visit {e}? | When is {e} open? | What are the hours of {e}? | At what times is {e} open?
"""

BY_PROPERTY: Mapping[str, tuple[str, ...]] = {
    name: tuple(one.strip().replace("{e}", "{entity}") for one in rest.split("|"))
    for name, _, rest in (line.partition(":") for line in _LINES.strip().splitlines())
}
"""Property → wordings that do not name it, or not as the triple does."""
