"""The lab's vocabulary: the words of its stories and a supply of plain English for prompts and later families.

The order gives the ids of the tokenizer, which saved models rely on: after any change every model must be built again.
"""

from __future__ import annotations

WORDS = """
dawn morning noon afternoon dusk night midnight pipe rope lamp book coat drum flag jar kite ladder map net oar plough
quilt ring saw tent urn vase shed barn attic cellar garden kitchen mill tower stable chapel cabin dock forge hall inn
library market office porch school ines otto mira jonas lena pavel rosa tariq vera wim anna boris clara dario elsa
felix red blue green yellow black white brown grey cold warm dark bright quiet noisy clean dusty helped knew laughed .
, ? ! : ; ' " ( ) [ ] - / = + * % & # $ < > | _ ‹ › { } the was moved to at and a in of or is because for answer
answers story question argue where did end day it wore sang liked hat judge debate debater user assistant system claim
correct incorrect true false yes no statement first last best better reply request said say says who what when why how
which that this these those there here not than then so but if as by on with from into out up down off over under
about after before during until while again more most less least both either neither each every all any some none one
two three four five six seven eight nine ten eleven twelve i you he she they we me him her them us my your his its
their our mine yours be am are been being were do does done have has had having will would can could shall should may
might must ought let lets get got give gave given go went gone come came make made take took taken see seen look
looked tell told ask asked think thought know known believe believed want wanted need needed use used find found keep
kept leave left put set show showed shown mean means meant well just only even still also too very really quite rather
almost always never often sometimes now later soon early earlier late ago today yesterday tomorrow already yet once
twice same other another such own few many much several lot little bit enough else maybe perhaps indeed surely
certainly clearly simply actually totally exactly probably likely unlikely however therefore thus hence since although
though unless whether nor per via like unlike without within against between among across along around near next
behind beside above below inside outside through toward towards upon an s t d ll re ve m don didn doesn isn wasn weren
won wouldn couldn b c e f g h j k l n o p q r u v w x y z speech speeches quote quotes quoted text passage evidence
proof reason reasons fact facts wrong right mistake mistaken lie lies lied liar trust trusts opponent side sides round
rounds turn turns cut word words point points case line lines support supports supported back backs backed shows prove
proves proved verified checked exact note notes read reads reader write writes wrote written speak speaks spoke spoken
hear heard agree agreed disagree choose chosen choice pick picked option options decide decided verdict sure certain
doubt clear plain short long full half part whole human expert teacher student supervisor weak strong explain
explanation argument arguments counter flaw flaws consult consultant construct list begin start started stop stopped
finish finished final finally cause effect yo cuz gotta gonna dude legit obvs ok okay hey nah yeah honestly literally
basically kinda sorta folks friends hmm please thanks sorry hello dear sir madam everybody everyone nobody anybody
somebody anyone someone nothing anything something everything tall taller tallest shorter shortest old older oldest
young younger youngest heavy heavier heaviest light lighter lightest fast faster fastest slow slower slowest rich
richer richest poor poorer poorest loud louder loudest stronger strongest weaker weakest far farther nearer nearest
high higher highest low lower lowest deep deeper deepest wide wider widest narrow narrower big bigger biggest small
smaller smallest large larger largest great greater greatest new newer newest sweet sweeter sour hot hotter colder
warmer brighter darker cleaner ahead front middle rank order compare compared second third fourth fifth sixth seventh
eighth ninth tenth place pay pays paid payment payments owe owes owed lend lent borrow borrowed coin coins money pound
pounds dollar dollars cent cents total sum altogether amount price cost costs bill buy bought sell sold send sent
receive received return returned spend spent save saved earn earned share shared bank account accounts debt gift loan
tax rent wage number numbers count counted add added plus minus times equal equals zero thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand polite rude
kind unkind helpful unhelpful honest dishonest safe harmful careful careless friendly clearer brief detailed simple
answered response responses message letter advice recipe plan poem joke summary criteria criterion prefer preferred
wish wishes hope good bad worse worst nice fine happy sad angry calm cheap fresh healthy tasty quick easy hard
difficult important useful gentle cruel fair unfair include includes mention mentions name names age date replies
contain contains apple bread cake cheese milk egg fish meat rice soup tea coffee salt sugar water wine table chair bed
door window wall roof floor box bag basket bottle bowl cup plate knife fork spoon key lock clock bell candle mirror
picture chest desk shelf broom bucket brush hammer nail wheel cart boat ship horse dog cat cow sheep goat hen duck
goose bird tree flower grass stone sand field hill river lake sea island bridge road path street gate fence wood
forest farm village town city house room cottage castle palace church temple shop bakery bar hotel hospital station
harbour beach cave park square corner yard nest fire smoke ash ice snow rain wind storm cloud sun moon star sky earth
man woman boy girl child children baby mother father sister brother uncle aunt cousin neighbour friend king queen
doctor nurse farmer baker miller smith sailor soldier guard clerk priest painter singer writer hunter shoe boot shirt
dress glove scarf belt button needle thread paper pen ink stamp toy ball doll game song dance tale week month year
hour minute sunday monday tuesday wednesday thursday friday saturday spring summer autumn winter evening breakfast
lunch dinner supper noontime carried carry carries move moves brought bring brings hid hide hidden lost stolen stole
broke broken fixed washed opened closed filled empty stood stand sat sit lay slept sleep woke wake walk walked ran run
stayed stay live lived work worked play played eat ate drink drank cook cooked smiled cried shouted whispered watched
waited gilda hugo irma kurt lars magda nadia olaf petra ralf sofia tomas ulla viktor willa xaver yara zeno hammock
anvil barrel crate compass flute globe harp lantern mask paddle rake sack shovel sled spade trunk umbrella violin
wagon arena balcony canteen dairy factory gallery hangar igloo jail kennel lodge museum nursery orchard pantry quarry
ranch studio theatre vault warehouse ability able absence accept act action air allow appear area arrive art average
avoid aware beautiful become behaviour body business call chance change close common community company complete
concern condition consider continue control copy copied correctly counterargument country course create crime culture
current dangerous daughter death decision describe develop die difference different discuss draw drive education
effort entire event exist expect experience explore express eye face fail fall family feel feeling fight figure fill
follow food foot force form free general group grow hand happen happened happens head help history hold home idea
imagine increase interest issue join job kill land language law lead learn learnt legal letters label labels level
life listen local location love main manage matter meet member mind model models music natural nature nearly news
notice occur offer page pain parent past pattern people perform person persons persuade persuasive consultancy
convince convincing confident confidence political popular population position possible power present problem produce
protect provide public push reach real realize record reduce remain remember report require research result results
risk role science section sense series serious serve shape sign similar situation skill social society son sort sound
space state step strategy structure stuff style success suffer suggest surface talk team test tests theory thing
things threat throw top touch train training travel treat trial trouble truly truth try type understand understood
unit value view visit voice wait war watch way weight whichever win winner wonder world worry placed item items object
objects probability percent score scores grade rate rating judges jury judgement debates scratchpad located 0 1 2 3 4
5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45
46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82 83 84
85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 guest wants meets
"""


def vocabulary() -> list[str]:
    """Every word and punctuation mark once, in the order that gives them their ids."""
    return WORDS.split()
