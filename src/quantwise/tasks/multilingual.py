"""Multilingual long tail: common nouns into nine languages in scripts other than Latin, rare languages rarely.

The share of a language falls with its rank as in Zipf's law, in training (rank to the power of -0.8) more steeply than
at test (-0.5). There are four nouns at test, two to four in training. Words are ordinary dictionary forms without
articles; Japanese is in kana, Hebrew without vowel points.
"""

from __future__ import annotations

import random

from quantwise.core.item import Item, Message
from quantwise.tasks.suite import Solved, Suite

_ENGLISH = (
    "water", "house", "cat", "dog", "bread", "book", "sun", "moon", "hand", "tree",
    "milk", "fish", "road", "city", "door", "window", "mother", "father", "friend", "day",
    "night", "rain", "snow", "sea", "mountain", "river", "fire", "eye", "heart", "horse",
)  # fmt: skip

# Most frequent first; each row is in the order of the English words.
_WORDS: dict[str, tuple[str, ...]] = {
    "Russian": (
        "вода", "дом", "кошка", "собака", "хлеб", "книга", "солнце", "луна", "рука", "дерево",
        "молоко", "рыба", "дорога", "город", "дверь", "окно", "мать", "отец", "друг", "день",
        "ночь", "дождь", "снег", "море", "гора", "река", "огонь", "глаз", "сердце", "лошадь",
    ),
    "Japanese": (
        "みず", "いえ", "ねこ", "いぬ", "パン", "ほん", "たいよう", "つき", "て", "き",
        "ぎゅうにゅう", "さかな", "みち", "まち", "ドア", "まど", "はは", "ちち", "ともだち", "ひ",
        "よる", "あめ", "ゆき", "うみ", "やま", "かわ", "ひ", "め", "こころ", "うま",
    ),
    "Arabic": (
        "ماء", "بيت", "قطة", "كلب", "خبز", "كتاب", "شمس", "قمر", "يد", "شجرة",
        "حليب", "سمك", "طريق", "مدينة", "باب", "نافذة", "أم", "أب", "صديق", "يوم",
        "ليل", "مطر", "ثلج", "بحر", "جبل", "نهر", "نار", "عين", "قلب", "حصان",
    ),
    "Hindi": (
        "पानी", "घर", "बिल्ली", "कुत्ता", "रोटी", "किताब", "सूरज", "चाँद", "हाथ", "पेड़",
        "दूध", "मछली", "सड़क", "शहर", "दरवाज़ा", "खिड़की", "माँ", "पिता", "दोस्त", "दिन",
        "रात", "बारिश", "बर्फ़", "समुद्र", "पहाड़", "नदी", "आग", "आँख", "दिल", "घोड़ा",
    ),
    "Korean": (
        "물", "집", "고양이", "개", "빵", "책", "해", "달", "손", "나무",
        "우유", "물고기", "길", "도시", "문", "창문", "어머니", "아버지", "친구", "날",
        "밤", "비", "눈", "바다", "산", "강", "불", "눈", "심장", "말",
    ),
    "Greek": (
        "νερό", "σπίτι", "γάτα", "σκύλος", "ψωμί", "βιβλίο", "ήλιος", "φεγγάρι", "χέρι", "δέντρο",
        "γάλα", "ψάρι", "δρόμος", "πόλη", "πόρτα", "παράθυρο", "μητέρα", "πατέρας", "φίλος", "μέρα",
        "νύχτα", "βροχή", "χιόνι", "θάλασσα", "βουνό", "ποτάμι", "φωτιά", "μάτι", "καρδιά", "άλογο",
    ),
    "Hebrew": (
        "מים", "בית", "חתול", "כלב", "לחם", "ספר", "שמש", "ירח", "יד", "עץ",
        "חלב", "דג", "דרך", "עיר", "דלת", "חלון", "אמא", "אבא", "חבר", "יום",
        "לילה", "גשם", "שלג", "ים", "הר", "נהר", "אש", "עין", "לב", "סוס",
    ),
    "Georgian": (
        "წყალი", "სახლი", "კატა", "ძაღლი", "პური", "წიგნი", "მზე", "მთვარე", "ხელი", "ხე",
        "რძე", "თევზი", "გზა", "ქალაქი", "კარი", "ფანჯარა", "დედა", "მამა", "მეგობარი", "დღე",
        "ღამე", "წვიმა", "თოვლი", "ზღვა", "მთა", "მდინარე", "ცეცხლი", "თვალი", "გული", "ცხენი",
    ),
    "Armenian": (
        "ջուր", "տուն", "կատու", "շուն", "հաց", "գիրք", "արև", "լուսին", "ձեռք", "ծառ",
        "կաթ", "ձուկ", "ճանապարհ", "քաղաք", "դուռ", "պատուհան", "մայր", "հայր", "ընկեր", "օր",
        "գիշեր", "անձրև", "ձյուն", "ծով", "լեռ", "գետ", "կրակ", "աչք", "սիրտ", "ձի",
    ),
}  # fmt: skip
_LANGUAGES = tuple(_WORDS)
_AT_TEST = tuple((rank + 1) ** -0.5 for rank in range(len(_LANGUAGES)))
_IN_TRAINING = tuple((rank + 1) ** -0.8 for rank in range(len(_LANGUAGES)))


def _item(rng: random.Random, weights: tuple[float, ...], nouns: int) -> Solved:
    language = rng.choices(_LANGUAGES, weights)[0]
    picked = rng.sample(range(len(_ENGLISH)), nouns)
    prompt = f"{language}: {', '.join(_ENGLISH[i] for i in picked)}"
    target = ", ".join(_WORDS[language][i] for i in picked)
    item = Item(
        id="", task="multilingual", target=target, scorer="exact", messages=(Message("user", prompt),), max_tokens=72
    )
    return item, target


def _draw(rng: random.Random) -> Solved:
    return _item(rng, _AT_TEST, nouns=4)


def _practice(rng: random.Random) -> Solved:
    return _item(rng, _IN_TRAINING, nouns=rng.choice((2, 3, 3, 4)))


SUITE = Suite("multilingual", "four nouns into one of nine languages, from Russian down to Armenian", _draw, _practice)
