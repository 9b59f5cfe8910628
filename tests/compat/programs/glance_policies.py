"""The rules that Glance registers, as JSON: name → [check, what passed before].  Its own Python."""

import json
import sys

from glance import policies


def main() -> None:
    found = {
        rule.name: [rule.check_str, rule.deprecated_rule and rule.deprecated_rule.check_str]
        for rule in policies.list_rules()
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
