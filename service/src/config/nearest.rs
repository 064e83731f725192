//! The nearest name to one that is not known.

/// How alike two names are at least, from 0 to 1, for one to be taken for the other: as clap has it.
const ALIKE: f64 = 0.7;

/// The name among `known` that whoever wrote `given` may have meant, if one is near.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = |name: &'a str| (strsim::jaro(given, name), name);
    let near = known.into_iter().map(alike).filter(|(likeness, _)| *likeness > ALIKE);
    near.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name)
}

/// `; did you mean "redis"?`, if a name among `known` is near; otherwise nothing.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known).map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_suggested_where_one_is_near() {
        let known = ["none", "redis", "row", "zookeeper"];
        for (given, suggested) in [
            ("redsi", Some("redis")),
            ("zoo-keeper", Some("zookeeper")),
            ("nome", Some("none")),
            ("paxos", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known), suggested, "{given}");
        }
        assert_eq!(did_you_mean("rdis", known), "; did you mean \"redis\"?");
        assert_eq!(did_you_mean("paxos", known), "");
    }
}
