"""The rules of the prompt filter. Wording is clinical; terms that only insult are not listed here.

An operator's own terms belong into a list of their own, not into this file.
"""

import re
from dataclasses import dataclass
from typing import Final

SEXUAL, MINORS, NONCONSENSUAL = "sexual", "minors", "non-consensual imagery"
VIOLENCE, HATE, SELF_HARM = "violence", "hate", "self-harm"
FIGURES, BRANDS = "public figures", "brands and characters"
CATEGORIES: Final = (SEXUAL, MINORS, NONCONSENSUAL, VIOLENCE, HATE, SELF_HARM, FIGURES, BRANDS)


@dataclass(frozen=True, slots=True)
class Rule:
    """All `patterns` must occur, after `exempt` has been taken out. `level`: the highest tolerance that refuses."""

    name: str
    category: str
    level: int
    patterns: tuple[re.Pattern[str], ...]
    exempt: re.Pattern[str] | None = None
    edits_only: bool = False
    compact: bool = False
    """Read without blanks, where words have no borders."""


def _any(*terms: str) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(terms) + r")\b")


_ACTS: Final = (
    *("porn\\w*", "xxx", "hentai", "hardcore sex", "sex(?:ual)? (?:act|scene|position|intercourse|activity)s?"),
    *(
        "intercourse",
        "(?:have|has|had|having) sex",
        "sexually explicit",
        "explicit sexual\\w*",
        "masturbat\\w*",
        "orgasm\\w*",
    ),
    *("genital\\w*", "penis(?:es)?", "vagina\\w*", "vulva\\w*", "erection", "ejaculat\\w*", "fellatio", "cunnilingus"),
    *("oral sex", "anal sex", "orgy", "bdsm", "fetish", "erotic\\w*", "nsfw", "blowjob", "sex tape", "making love"),
)
_NUDITY: Final = (
    *("nude", "nudes", "nudity", "naked", "topless", "bottomless", "bare breasts?", "bare(?:d)? chest(?:ed)? woman"),
    *("exposed breasts?", "unclothed", "undressed", "without (?:any )?cloth(?:es|ing)", "nipples?", "lingerie"),
    *("see ?through (?:dress|shirt|clothes|clothing|blouse)", "stripping", "striptease", "wearing nothing"),
    *("in (?:her|his|their) birthday suits?", "in the buff", "unclad", "disrobed", "cloth(?:es|ing) free"),
    "(?:bare|expose|show|reveal|flash)(?:s|d|ing)? (?:her|his|their) (?:\\w+ )?(?:breasts?|boobs?|tits|crotch|buttocks)",
    "wear(?:s|ing)? (?:only|just|nothing but) (?:a smile|body ?paint|(?:her |his |their )?skin)",
    "(?:only|just) wearing (?:a smile|body ?paint|(?:her |his |their )?skin)",
)
_SUGGESTIVE: Final = ("sexy", "seductive\\w*", "sensual\\w*", "provocative pose", "sexuali[sz]ed", "aroused", "lewd")
_NOT_NUDITY: Final = re.compile(
    r"\bnude (?:colou?r\w*|tones?|shades?|lipstick|heels|pumps|shoes|palette|make ?up|nails?|polish|beige|pink)\b"
    r"|\bnaked (?:mole[ -]?rats?|eye|cake|flame|bulb|branches|trees|neck (?:chicken|hen)s?|oats?)\b"
    r"|\bwith the naked eye\b|\bpaint stripping\b|\bstripping (?:paint|wallpaper|varnish|the (?:paint|bark|wallpaper))\b"
    r"|\blingerie (?:shop|store|drawer)\b|\bnipple (?:fitting|wrench)\b|\bgrease nipple\b|\bundressed (?:salad|stone|wood)\b"
)
_MINOR: Final = _any(
    *("child(?:ren)?", "kids?", "toddlers?", "infants?", "bab(?:y|ies)", "minors?", "underage\\w*", "pre ?teens?"),
    *("teen(?:age|aged|ager|agers|s)?", "school ?(?:girl|boy|child|children|kid)s?", "little (?:girl|boy)s?"),
    *("young (?:girl|boy)s?", "juveniles?", "adolescents?", "loli\\w*", "shota\\w*", "kindergart\\w*", "pupils?"),
    r"(?:[1-9]|1[0-7])[- ]?(?:year|yr)s?[- ]?olds?",
    r"(?:[1-9]|1[0-7])[- ]?y[ /]?o",
    r"(?:aged?|age of) (?:[1-9]|1[0-7])",
    r"(?:five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen)[- ]years?[- ]olds?",
)
_NOT_MINOR: Final = re.compile(
    r"\bbaby (?:blue|pink|grand|oil|animals?|elephants?|goats?)\b|\binner child\b|\bkids? goats?\b"
)
_PERSON: Final = (
    r"(?:her|his|their|him|them|she|he|woman|women|man|men|girl|girls|boy|person|people|lady|model|friend|neighbou?r"
    r"|colleague|classmate|wife|husband|girlfriend|boyfriend|ex|teacher|coworker|sister|actress|singer|subject)(?:'?s)?"
)
_CLOTHES: Final = (
    r"(?:cloth(?:es|ing)|shirt|t-?shirt|dress|bra|bikini|swimsuit|underwear|pants|trousers|skirt|top|blouse|outfit|"
    r"garments?|panties|lingerie|jeans|shorts|robe|towel)"
)
_UNDRESS: Final = _any(
    r"nudif\w*",
    r"deep ?nudes?",
    rf"undress(?:es|ed|ing)? (?:the |this |that |my )?{_PERSON}",
    rf"(?:strip|stripped|disrobe|unclothe)s? (?:off )?(?:the |this |that |my )?{_PERSON}",
    rf"(?:remove|take off|taking off|removing|delete|erase|rip off|tear off|pull off|get rid of)s? (?:all )?(?:of )?"
    rf"(?:the |this |that |my )?{_PERSON}(?: \w+)? {_CLOTHES}",
    rf"(?:remove|delete|erase|take|taking|pull|pulling|rip|tear|get|lose|take off|removing|strip)s? (?:all )?(?:of )?"
    rf"(?:the |that |this |her |his |their )?{_CLOTHES} (?:from|off|of|off of) (?:the |this |that |my )?"
    rf"(?:\w+ )?{_PERSON}",
    rf"(?:make|show|turn|render|edit|draw|put|change|depict|leave)s? (?:the |this |that |my )?{_PERSON}"
    r"(?: \w+){0,3} (?:look |appear |to be |be |completely |fully |totally |into )*(?:nude|naked|topless|undressed|unclothed)",
    rf"{_PERSON} (?:without|with no) (?:any |her |his |their )?{_CLOTHES}",
    rf"(?:x-?ray|see) (?:vision )?through (?:the |this )?(?:{_PERSON} )?{_CLOTHES}",
    rf"what (?:the |this |that |my )?{_PERSON} looks? like (?:naked|nude|undressed|(?:under|beneath|without) (?:\w+ )?{_CLOTHES})",
    # written without blanks
    r"(?:remove|takeoff|stripoff|erase)(?:all)?(?:of)?(?:the|her|his|their)?(?:clothes|clothing|dress|shirt|bra|bikini)",
)
_WORN: Final = (
    r"(?:cloth(?:es|ing)|shirt|t-?shirt|dress|bra|bikini|swimsuit|underwear|pants|trousers|skirt|blouse|outfit|garments?"
    r"|panties|lingerie|jeans)"
)
_RID: Final = (
    "remove|removing|take off|taking off|take away|delete|erase|strip off|strip away|lose|drop|dissolve|melt|evaporate"
    "|vapori[sz]e|disintegrate|shed|discard|eliminate|omit|peel off|peel away"
)
_BARE: Final = r"(?:nothing|(?:her |his |their )?(?:bare|naked|nude) (?:skin|body))"
_UNDRESS_SUPPLIED: Final = _any(
    rf"(?:{_RID})(?:s|d)? (?:all |every |of |the |her |his |their |this |that )*{_WORN}",
    rf"(?:without|minus|no more) (?:the |her |his |their |any |a )?{_WORN}",
    rf"(?:what (?:\w+ )?(?:is |lies |hides )?|(?:body|skin|figure|everything) )(?:hidden )?(?:under|underneath|beneath)"
    rf" (?:the |her |his |their |this |that )(?:\w+ )?{_WORN}",
    rf"x ?ray (?:\w+ ){{0,4}}{_WORN}",
    rf"{_WORN} (?:is |are |come |comes |came )?(?:off(?! the| a| shoulder| white)|gone|removed)",
    rf"(?:lift|raise|pull up|pull down|hike|hitch|flip|unzip|unbutton)(?:s|ed|ing)? (?:up |down |and open )?"
    rf"(?:her|his|their) (?:\w+ )?{_WORN}",
    rf"(?:take|get) {_PERSON} out of (?:\w+ )?{_WORN}",
    r"(?:her|she|woman|women|girls?|lady)(?: \w+){0,3} (?:shirtless|braless|pantyless)",
    rf"{_WORN} (?:\w+ )?(?:disappear|vanish|invisible|transparent|see ?through|melt away|fall off|fall away)\w*",
    rf"{_WORN} (?:(?:with|for|into|to|by|becomes?|becoming|as) )?{_BARE}",
    rf"{_BARE} instead of (?:the |her |his |their )?{_WORN}",
    r"in (?:her|his|their|the) birthday suits?",
)
_NOT_UNDRESS: Final = re.compile(
    r"\b(?:mannequin|doll|scarecrow|statue|hanger|chair|washing line|clothes ?line|laundry)(?:'?s)?\b[^.]{0,40}"
    rf"|\b{_WORN} (?:\w+ )?(?:from|on|off|in|under|over|next to|behind) (?:the |a |my )?(?:\w+ )?(?:bed|floor|ground|sofa"
    r"|couch|table|desk|rack|shelf|shelves|wardrobe|closet|drawer|basket|background|foreground|window|door|wall|hook|bag"
    r"|suitcase|line|rope|fence|store|shop|corner|chair|hanger|mannequin|doll|scarecrow|statue)\b|\b(?:dress|shirt) (?:code|rehearsal|logo|pattern|stain|wrinkles?|print)s?\b"
)
_UNDRESS_COMPACT: Final = re.compile(
    r"(?<!s)undress(?:her|him|them(?!an)|thewoman|theman(?!nequin)|thegirl|thisperson)|nudif(?:y|ied)"
    r"|(?:remove|takeoff|ripoff|erase)(?:all)?(?:her|his|their)(?:cloth(?:es|ing)|bikini|underwear)"
)
_INTIMATE: Final = (
    _any(r"(?:tiny|micro|string|thong|sheer|skimpy)? ?bikinis?", "lingerie", "underwear", "thongs?", "panties"),
    _any(r"(?:put|dress|change|show|make|give|swap|replace|wearing|wears|wear|into|in)"),
    _any(_PERSON),
)
_UNCLAD: Final = _any(*(term for term in _NUDITY if term not in ("nudity", "nipples?", "lingerie", "stripping")))
_REAL: Final = _any(
    r"deep ?fak\w+",
    r"(?:my|our|his|her|their) (?:\w+ )?(?:ex|exes|girlfriends?|boyfriends?|wife|husband|neighbou?rs?|classmates?|colleagues?"
    r"|coworkers?|boss|teachers?|friends?|sisters?|brothers?|mother|mom|mum|daughters?|roommates?|cousins?|aunts?)",
)
_SEXUAL_WORDS: Final = _any(
    *(*_ACTS, *_NUDITY, *_SUGGESTIVE, "bikini model", "thongs?", "panties", "g ?strings?", "fishnets?", "lolicons?"),
    *("shotacons?", "lolis? (?:\\w+ ){0,4}(?:bikini|swimsuit|underwear|stockings)s?"),
)
_CLINICAL: Final = re.compile(
    r"[^.]{0,40}\b(?:anatom\w+|medical|textbook|diagram|health (?:class|education|clinic)|breast ?feeding|mammogra\w+|gyn\w*ecolog\w+"
    r"|contracepti\w+|urolog\w+|marble|statue|sculptures?|renaissance|classical (?:painting|sculpture)|museum|michelangelo"
    r"|botticelli|rubens|venus de milo|figure drawing|life drawing|birth of venus|vitruvian)\b[^.]{0,80}"
)

_GORE: Final = _any(
    *("gor[ey]", "decapitat\\w*", "behead\\w*", "dismember\\w*", "disembowel\\w*", "mutilat\\w*", "eviscerat\\w*"),
    *("severed (?:head|limb|arm|leg|hand|finger)s?", "entrails", "snuff (?:film|video)", "torn apart (?:body|bodies)"),
    *(
        "blood ?bath",
        "massacre\\w*",
        "tortur(?:e|ed|ing)(?: \\w+){0,3} (?:person|man|woman|prisoner|victim|captive|hostage)s?",
    ),
    "(?:person|man|woman|prisoner|victim|hostage|captive)s?(?: \\w+){0,3} (?:tortured|executed|stabbed|shot dead|impaled)",
    *(
        "stabb(?:ing|ed) (?:a |the |an? \\w+ )?(?:person|man|woman|victim|people|someone|him|her)",
        "mangled (?:body|corpse)s?",
    ),
    *(
        "bloody (?:corpse|body|murder|wound)s?",
        "bloodied corpses?",
        "rotting corpses?",
        "murder(?:ing|s|ed)? (?:a|the|his|her)",
    ),
    *(
        "shoot(?:ing|s)? (?:a |the )?(?:person|people|crowd|man|woman|students|victim)s?",
        "mass shooting",
        "school shooting",
    ),
    *(
        "execution by",
        "public execution",
        "burn(?:ing|ed)? (?:a |the )?(?:person|man|woman|people) alive",
        "animal cruelty",
    ),
    *(
        "(?:kill|killing|slaughter|slaughtering) (?:a |the )?(?:person|people|man|woman|crowd|victim|hostage)s?",
        "graphic violence",
    ),
    *("beat(?:ing|en)? (?:\\w+ )?to death", "brutal(?:ly)? (?:kill|murder|beat|attack)\\w*", "terror(?:ist)? attack"),
    *(
        "how to (?:make|build|assemble) (?:a |an )?(?:pipe |nail |car )?(?:bomb|explosive|silencer)s?",
        "suicide bomb\\w*",
    ),
)
_NOT_GORE: Final = re.compile(
    r"\bgory details\b|\btorture (?:garden|museum)\b|\b(?:photo|video|film|basket ?ball|penalty) shoot\w*\b"
    r"|\bshooting (?:stars?|range|guard|a (?:film|photo|portrait|scene|movie|basket)|people with (?:a )?camera)\b"
    r"|\bmurder of crows\b|\bmurder mystery\b|\bshot (?:on|with|from)\b|\bbloody mary\b|\bkilling time\b|\bmassacre memorial\b"
    r"|\bmemorial (?:for|to|of)[^.]{0,40}|\bgore ?-?tex\b|\bal gore\b|\bbeating eggs\b|\bkill(?:ing)? the lights?\b"
)
_HATE: Final = _any(
    *(
        "swastikas?",
        "nazi (?:salute|flag|propaganda|symbol|party|rally|uniform)s?",
        "heil hitler",
        "hail hitler",
        "sieg heil",
    ),
    *("ku klux klan", "kkk", "white (?:power|supremac\\w+)", "aryan (?:race|supremacy|brotherhood)", "master race"),
    *(
        "ethnic cleansing",
        "racial (?:superiority|purity|hygiene)",
        "racially inferior",
        "race war",
        "great replacement",
    ),
    *(
        "sub ?humans?",
        "unter ?mensch\\w*",
        "gas (?:the|all) \\w+",
        "exterminat(?:e|ing|ion of) (?:all |the )?(?:\\w+ )?(?:people|race|jews|muslims|refugees|immigrants|minorities)",
    ),
    "(?:jews?|jewish|muslims?|black people|immigrants|gay people|refugees|asians?|africans?|roma)(?: \\w+){0,4} as (?:\\w+ )?(?:rats|vermin|apes|monkeys|insects|pigs|animals|parasites|cockroaches)",
    "(?:racist|antisemitic|anti-?semitic|homophobic|islamophobic|transphobic) (?:caricature|cartoon|propaganda|meme|poster|stereotype|slur)s?",
    "(?:kill|gas|burn|hang|shoot|deport|expel|eradicate|death to|get rid of) (?:all |every |the )*(?:jews?|muslims?|black people"
    "|gays?|gay people|immigrants?|refugees?|asians?|africans?|roma|gypsies|christians?|hindus?|trans(?:gender)? people)",
    "(?:hatred|hate) (?:of|against|towards?) (?:jews|muslims|christians|immigrants|black people|women|gay people|minorities)",
    *(
        "lynch(?:ed|ing|mob)?",
        "celebrat\\w+ (?:the )?(?:holocaust|genocide|slavery)",
        "glorif\\w+ (?:the )?(?:holocaust|genocide|nazis?|slavery)",
        "holocaust denial",
        "blackface",
    ),
)
_NOT_HATE: Final = re.compile(
    r"[^.]{0,60}\b(?:museum|documentary|history (?:book|lesson|class)|memorial|remembrance|anti-?nazi|resistance fighter|against (?:racism|hate"
    r"|antisemitism)|defeat of|liberation of|hindu|buddhist|david lynch|civil rights)\b[^.]{0,80}"
)
_SELF_HARM: Final = _any(
    *("self[- ]?harm\\w*", "self[- ]?injur\\w*", "self[- ]?mutilat\\w*", "suicid(?:e|al)", "commit(?:ting|s)? suicide"),
    "(?:cut|cuts|cutting|slit|slits|slitting|slash\\w*) (?:her|his|my|their|your)(?: own)? (?:wrist|arm|thigh|vein|throat|skin|leg)s?",
    "(?:hang|hangs|hanging|hanged|kill|kills|killing|starv\\w+|burn\\w*|drown\\w*|shoot\\w*|poison\\w*) (?:him|her|my|your|them|one)sel(?:f|ves)",
    *(
        "overdos(?:e|es|ing)",
        "(?:person|man|woman|girl|boy|figure|teenager) (?:\\w+ ){0,3}noose",
        "noose around (?:her|his|their|my) neck",
    ),
    *(
        "pro[- ]?ana",
        "thinspo\\w*",
        "thinspiration",
        "pro[- ]?mia",
        "end(?:ing)? (?:her|his|my|their) (?:own )?life",
        "jump(?:ing|s)? to (?:her|his|their) death",
    ),
)
_NOT_SELF_HARM: Final = re.compile(
    r"\bsuicide squad\b|\bsuicide (?:doors?|squeeze|king)\b|[^.]{0,60}\b(?:prevention|awareness|hotline|helpline|support group|survivors?|crisis line"
    r"|recovery|therap\w+)\b[^.]{0,80}|\boverdose of (?:cute\w*|colou?rs?|sugar|sunshine)\b"
)
_FIGURES: Final = _any(
    *("donald trump", "joe biden", "barack obama", "kamala harris", "hillary clinton", "vladimir putin", "xi jinping"),
    *(
        "angela merkel",
        "olaf scholz",
        "friedrich merz",
        "emmanuel macron",
        "keir starmer",
        "boris johnson",
        "narendra modi",
    ),
    *(
        "volodymyr zelensk\\w+",
        "recep tayyip erdogan",
        "benjamin netanyahu",
        "pope francis",
        "pope leo",
        "kim jong[- ]un",
    ),
    *(
        "king charles(?: iii)?",
        "queen elizabeth(?: ii)?",
        "prince harry",
        "prince william",
        "meghan markle",
        "kate middleton",
    ),
    *("elon musk", "jeff bezos", "bill gates", "mark zuckerberg", "sam altman", "tim cook", "greta thunberg"),
    *(
        "taylor swift",
        "beyonc[eé]",
        "rihanna",
        "lady gaga",
        "justin bieber",
        "billie eilish",
        "ariana grande",
        "kanye west",
    ),
    *(
        "scarlett johansson",
        "emma watson",
        "tom cruise",
        "brad pitt",
        "angelina jolie",
        "leonardo dicaprio",
        "keanu reeves",
    ),
    *(
        "jennifer lawrence",
        "margot robbie",
        "zendaya",
        "timoth[eé]e chalamet",
        "dwayne johnson",
        "will smith",
        "kim kardashian",
    ),
    *("cristiano ronaldo", "lionel messi", "lebron james", "serena williams", "oprah winfrey", "robert downey jr"),
    *("trump", "putin", "zelensky", "obama", "adolf hitler", "hitler", "stalin", "osama bin laden"),
)
_NOT_FIGURES: Final = re.compile(r"\btrump (?:card|suit|cards)\b|\btrumpet\w*\b")
_BRANDS: Final = _any(
    *(
        "mickey mouse",
        "minnie mouse",
        "donald duck",
        "pikachu",
        "pok[eé]mon",
        "super mario",
        "sonic the hedgehog",
        "hello kitty",
    ),
    *(
        "spider[- ]?man",
        "batman",
        "superman",
        "wonder woman",
        "iron man",
        "captain america",
        "darth vader",
        "yoda",
        "star wars",
    ),
    *(
        "harry potter",
        "hermione granger",
        "elsa from frozen",
        "disney\\w*",
        "pixar",
        "marvel (?:comics|superhero|character)s?",
    ),
    *(
        "homer simpson",
        "bart simpson",
        "the simpsons",
        "sponge ?bob\\w*",
        "shrek",
        "minions?\\b(?: movie| from)?",
        "winnie the pooh",
    ),
    *(
        "buzz lightyear",
        "barbie",
        "lego",
        "transformers optimus prime",
        "optimus prime",
        "teletubbies",
        "peppa pig",
        "godzilla",
    ),
    *(
        "coca[- ]?cola",
        "pepsi",
        "nike(?: swoosh)?",
        "adidas",
        "gucci",
        "louis vuitton",
        "chanel",
        "prada",
        "rolex",
        "starbucks",
    ),
    *(
        "mcdonald'?s?",
        "burger king",
        "kfc",
        "red bull",
        "ferrari",
        "lamborghini",
        "porsche",
        "tesla (?:model|car|cybertruck|logo)\\w*",
    ),
    *(
        "mercedes[- ]?benz",
        "bmw",
        "iphone",
        "(?:apple|shell|amazon|target|google|microsoft|meta|puma|dove|nasa|fifa|olympic) logo",
    ),
    *("playstation", "xbox", "nintendo", "netflix", "instagram", "facebook", "ikea", "walmart", "heineken", "nutella"),
)
_NOT_BRANDS: Final = re.compile(
    r"\b(?:barbie doll collector|nike of samothrace|winged victory|goddess nike|statue of nike|chanel number|spider monkey|minions of)\b"
    r"|\b(?:goddess|altar|temple) (?:of )?(?:athena )?nike\b"
)

RULES: Final = (
    Rule(
        "sexual content with minors",
        MINORS,
        5,
        (_MINOR, _SEXUAL_WORDS),
        re.compile(f"{_NOT_NUDITY.pattern}|{_NOT_MINOR.pattern}"),
    ),
    Rule("undressing a supplied picture", NONCONSENSUAL, 5, (_UNDRESS_SUPPLIED,), _NOT_UNDRESS, edits_only=True),
    Rule(
        "nudity for a supplied picture",
        NONCONSENSUAL,
        5,
        (_UNCLAD,),
        re.compile(f"{_NOT_NUDITY.pattern}|{_CLINICAL.pattern}"),
        edits_only=True,
    ),
    Rule("sexual acts for a supplied picture", NONCONSENSUAL, 5, (_any(*_ACTS),), _CLINICAL, edits_only=True),
    Rule("undressing a person", NONCONSENSUAL, 5, (_UNDRESS,), _NOT_UNDRESS),
    Rule("undressing, written without blanks", NONCONSENSUAL, 5, (_UNDRESS_COMPACT,), compact=True),
    Rule("somebody supplied in underwear", NONCONSENSUAL, 4, _INTIMATE, _NOT_UNDRESS, edits_only=True),
    Rule(
        "secret or vengeful pictures",
        NONCONSENSUAL,
        5,
        (
            _any(
                *(
                    "up ?skirt\\w*",
                    "revenge porn",
                    "voyeur\\w*",
                    "peeping tom",
                    "non-?consensual\\w*",
                    "without (?:her|his|their) consent",
                ),
                *(
                    "(?:hidden|secret|spy) (?:camera|cam)s?(?: \\w+){0,4} (?:bathroom|shower|bedroom|toilet|changing room|locker room)s?",
                ),
                *(
                    "(?:secretly|covertly) (?:film|photograph|record)\\w*(?: \\w+){0,5} (?:shower|undress|bath|bedroom|toilet|chang)\\w*",
                ),
                *(
                    "down ?blouse\\w*",
                    "leaked (?:nudes?|sex tape|private (?:photo|picture)s)",
                    "(?:rape|raped|raping|rapist|sexual assault|molest\\w*)",
                ),
            ),
        ),
    ),
    Rule("sexual pictures of a real person", NONCONSENSUAL, 5, (_FIGURES, _any(*_ACTS, *_NUDITY)), _NOT_NUDITY),
    Rule(
        "sexual pictures of somebody known",
        NONCONSENSUAL,
        5,
        (_REAL, _any(*_ACTS, *_NUDITY)),
        re.compile(f"{_NOT_NUDITY.pattern}|{_CLINICAL.pattern}"),
    ),
    Rule("sexual acts", SEXUAL, 4, (_any(*_ACTS),), _CLINICAL),
    Rule("nudity", SEXUAL, 2, (_any(*_NUDITY),), re.compile(f"{_NOT_NUDITY.pattern}|{_CLINICAL.pattern}")),
    Rule("suggestive", SEXUAL, 0, (_any(*_SUGGESTIVE),), _CLINICAL),
    Rule("graphic violence", VIOLENCE, 3, (_GORE,), _NOT_GORE),
    Rule("hatred of a group", HATE, 4, (_HATE,), _NOT_HATE),
    Rule("self-harm", SELF_HARM, 4, (_SELF_HARM,), _NOT_SELF_HARM),
    Rule("public figures", FIGURES, 0, (_FIGURES,), _NOT_FIGURES),
    Rule("violence against a real person", FIGURES, 4, (_FIGURES, _GORE), _NOT_GORE),
    Rule("brands and characters", BRANDS, 0, (_BRANDS,), _NOT_BRANDS),
)
