"""Checks a Grip-Sig as backends do. Arguments: token, key, algorithm."""

import sys

import jwt

token, key, algorithm = sys.argv[1:]
claims = jwt.decode(token, key, algorithms=[algorithm], options={"require": ["exp", "iss"]})
print(claims["iss"])
