//! What is read from which layer, and what is refused.

use std::io::Write;

use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut on_disk = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    on_disk.write_all(file.as_bytes()).expect("write the file");
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    };
    Config::load(&Sources {
        file: Some(on_disk.path().into()),
        environment: own(environment).into_iter().collect(),
        overrides: own(flags),
    })
}

#[test]
fn the_default_is_the_lock_table_on_the_embedded_store() {
    let config = load("", &[], &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.lock.strategy, StrategyName::Database);
    assert_eq!(config.guard(), Guard::Version);
}

#[test]
fn the_later_layer_wins() {
    let file = "[lock]\nwait = \"1s\"\nstrategy = \"row\"\n[checkout]\nqueue = 1\nmax_batch = 2\n";
    let environment = [("STOCKLOCK__LOCK__STRATEGY", "local"), ("STOCKLOCK__CHECKOUT__MAX_BATCH", "3")];
    let config = load(file, &environment, &[("checkout.max_batch", "4")]).unwrap();
    assert_eq!(config.lock.wait, Duration::from_secs(1));
    assert_eq!(config.lock.strategy, StrategyName::Local);
    assert_eq!((config.checkout.queue, config.checkout.max_batch), (1, 4));
}

#[test]
fn what_cannot_work_is_refused_with_the_key_named() {
    let refused = |file: &str| load(file, &[], &[]).unwrap_err();
    for (file, key) in [
        ("[lock]\nstratgy = \"none\"", "lock.stratgy"),
        ("[lock]\nstrategy = \"zebra\"", "lock.strategy"),
        ("[lock]\nwait = \"soon\"", "lock.wait"),
        ("[lock]\nwait = 5", "lock.wait"),
        // Of an even number, and of one that is counted twice, there is no majority.
        ("[lock.redis]\nurl = \"redis://a,redis://b\"", "lock.redis.url"),
        ("[lock.redis]\nurl = [\"redis://a\", \"redis://b\"]", "lock.redis.url"),
        ("[lock.redis]\nurl = [\"redis://a\", \"redis://b\", \"redis://a\"]", "lock.redis.url"),
        ("[lock.redis]\nurl = []", "lock.redis.url"),
        ("[lock.redis]\nurl = 5", "lock.redis.url"),
        ("[lock.redis]\nurl = \"rediss://a/#insecure\"", "lock.redis.url"),
        ("[lock.redis]\nurl = \"redis://a/1\"\ncluster = true", "lock.redis.url"),
        ("[lock.redis]\ncluster = true\nsentinel = \"mymaster\"", "lock.redis.cluster"),
        ("[lock.redis]\nsentinel_user = \"shop\"", "lock.redis.sentinel_user"),
        ("[lock.redis]\nsentinel_password = \"secret\"", "lock.redis.sentinel_password"),
        ("[lock.redis]\nca_file = \"ca.pem\"", "lock.redis.ca_file"),
        ("[lock.redis]\nurl = \"rediss://a\"\ncert_file = \"a.pem\"", "lock.redis.cert_file"),
        ("[lock.redis]\nurl = \"rediss://a\"\nkey_file = \"a.key\"", "lock.redis.key_file"),
        // Behind the first path, each would have a root of its own.
        ("[lock.zookeeper]\nservers = \"a:2181/shop,b:2181/shop\"", "lock.zookeeper.servers"),
        ("[lock.zookeeper]\nservers = \"a:2181/shop, b:2181\"", "lock.zookeeper.servers"),
        ("[lock.zookeeper]\nservers = \"a:2181,,b:2181\"", "lock.zookeeper.servers"),
        ("[lock.zookeeper]\nservers = \"a:2181, b:2181\"", "lock.zookeeper.servers"),
        ("[lock.zookeeper]\nservers = \"a:2181 b:2181\"", "lock.zookeeper.servers"),
        ("[lock.zookeeper]\nservers = \"/shop\"", "lock.zookeeper.servers"),
        ("[lock.etcd]\nurl = \"https://a:2379,http://b:2379\"", "lock.etcd.url"),
        ("[lock.etcd]\nurl = \"https://a:2379/\"\ncert_file = \"a.pem\"", "lock.etcd.cert_file"),
        ("[lock.etcd]\nurl = \"https://a:2379\"\nkey_file = \"a.key\"", "lock.etcd.key_file"),
        ("[lock.etcd]\nca_file = \"ca.pem\"", "lock.etcd.ca_file"),
        ("[lock.etcd]\nuser = \"shop\"", "lock.etcd.user"),
        ("[lock.etcd]\npassword = \"secret\"", "lock.etcd.password"),
        ("[lock.etcd]\npassword_file = \"secret\"", "lock.etcd.password_file"),
        ("[lock.zookeeper]\nca_file = \"ca.pem\"", "lock.zookeeper.ca_file"),
        ("[lock.etcd]\nurl = \"http://a:2379,b:2379\"", "lock.etcd.url"),
        ("[lock.etcd]\nurl = \"http://a:2379, http://b:2379\"", "lock.etcd.url"),
        ("[lock.etcd]\nurl = \"http://a\"", "lock.etcd.url"),
        ("[lock.etcd]\nurl = \"http://shop:secret@a:2379\"", "lock.etcd.url"),
        ("[lock.etcd]\nurl = \"http://a:2379/v3\"", "lock.etcd.url"),
        ("[lock.etcd]\nurl = \"a:2379\"", "lock.etcd.url"),
        ("[lock.etcd]\nprefix = \"/stocklock/\"", "lock.etcd.prefix"),
        ("[lock.etcd]\nprefix = \"\"", "lock.etcd.prefix"),
        ("[lock.etcd]\nlease = \"2h\"", "lock.etcd.lease"),
        ("[lock.database]\nlease = \"often\"", "lock.database.lease"),
        ("[lock.database]\nlease = \"1ms\"", "lock.database.lease"),
        ("[lock.redis]\nlease = \"1ms\"", "lock.redis.lease"),
        ("[server]\nlisten = \"nowhere\"", "server.listen"),
        ("[server]\nrequest_timeout = \"0s\"", "server.request_timeout"),
        ("[lock]\nwait = \"1000000y\"", "lock.wait"),
        ("[checkout]\nmax_batch = 0", "checkout.max_batch"),
        ("[checkout]\nmax_batch = -1", "checkout.max_batch"),
        ("[checkout]\nqueue = 0", "checkout.queue"),
        ("[checkout]\nguard = \"maybe\"", "checkout.guard"),
        ("[checkout]\nholds_kept = 1000001", "checkout.holds_kept"),
        ("[log]\nformat = \"xml\"", "log.format"),
        ("[log]\naccess = \"perhaps\"", "log.access"),
        ("[log]\nslow = \"2h\"", "log.slow"),
        ("[telemetry]\notlp_endpoint = \"https://collector:4318\"", "telemetry.otlp_endpoint"),
        ("[telemetry]\notlp_endpoint = \"collector:4318\"", "telemetry.otlp_endpoint"),
        ("[telemetry]\notlp_endpoint = \"http://collector\"", "telemetry.otlp_endpoint"),
        ("[telemetry]\notlp_endpoint = \"http://shop:secret@collector:4318\"", "telemetry.otlp_endpoint"),
        ("[telemetry]\notlp_endpoint = \"http://collector:4318/v1/traces\"", "telemetry.otlp_endpoint"),
        ("[telemetry]\nsample_ratio = 1.5", "telemetry.sample_ratio"),
        ("[telemetry]\nsample_ratio = nan", "telemetry.sample_ratio"),
        ("[failpoints]\nafter_lunch = \"abort\"", "failpoints.after_lunch"),
        ("[failpoints]\nafter_read = \"boom\"", "failpoints.after_read"),
        ("[failpoints]\nafter_read = 5", "failpoints.after_read"),
        ("[lock]\nstrategy = \"none\"\n[checkout]\nguard = \"version\"", "checkout.guard"),
        ("[lock]\nstrategy = \"optimistic\"\n[checkout]\nguard = \"off\"", "checkout.guard"),
        ("[admin]\nallow_reset = \"perhaps\"", "admin.allow_reset"),
        ("[admin]\nlisten = \"nowhere\"", "admin.listen"),
        ("[admin]\ntoken = \"two words\"", "admin.token"),
        ("[server]\ntoken = \"Schlüssel\"", "server.token"),
        ("[server]\nlocked_reads = 0", "server.locked_reads"),
        ("[server]\nrate_limit = 0", "server.rate_limit"),
        ("[server]\nrate_limit = 1000001", "server.rate_limit"),
        ("[server]\nrate_limit = 5\nrate_burst = 0", "server.rate_burst"),
        ("[server]\nrate_burst = 5", "server.rate_burst"),
        ("shop = 1", "shop"),
        ("[[catalog]]\nsku = \"a b\"\nname = \"x\"\nstock = 1", "catalog (sku \"a b\")"),
    ] {
        assert_eq!(refused(file).key, key, "{file}: {}", refused(file));
    }
}

#[test]
fn a_strategy_alone_has_the_defaults_that_the_help_shows() {
    for strategy in ["redis", "zookeeper", "etcd"] {
        let defaults = LockSection::default().with_all_sections();
        let expected = match load("", &[], &[("lock.strategy", strategy)]).unwrap().lock_config() {
            LockConfig::Redis(section) => Some(section) == defaults.redis,
            LockConfig::Zookeeper(section) => Some(section) == defaults.zookeeper,
            LockConfig::Etcd(section) => Some(section) == defaults.etcd,
            _ => false,
        };
        assert!(expected, "{strategy}");
        // The generated file, with one word of it changed.
        let edited = reference().replace("strategy = \"database\"", &format!("strategy = \"{strategy}\""));
        assert_eq!(load(&edited, &[], &[]).unwrap().lock.strategy.as_str(), strategy);
    }
}

#[test]
fn an_error_lists_what_there_is_and_what_may_be_meant_without_words_of_the_program() {
    for (key, value, why) in [
        (
            "lock.strategy",
            "redsi",
            "must be one of none, local, database, redis, zookeeper, etcd, row, optimistic, not \"redsi\"; \
             did you mean \"redis\"?",
        ),
        (
            "checkout.guard",
            "versoin",
            "must be one of version, off, not \"versoin\"; did you mean \"version\"?",
        ),
        ("log.format", "xml", "must be one of text, json, not \"xml\""),
        ("lock.stratgy", "none", "there is no such key; did you mean \"lock.strategy\"?"),
        ("colour", "red", "there is no such key"),
    ] {
        let flag = load("", &[], &[(key, value)]).unwrap_err();
        assert_eq!((flag.key.as_str(), flag.why.as_str()), (key, why));
        let variable = format!("STOCKLOCK__{}", key.replace('.', "__").to_uppercase());
        assert_eq!(load("", &[(&variable, value)], &[]).unwrap_err(), flag);
    }
    for file in ["lock = 5", "[lock]\nredis = 5", "[lock]\nstrategy = 5", "[server]\nrate_limit = \"fast\""] {
        let error = load(file, &[], &[]).unwrap_err().to_string();
        for word in ["struct", "variant", "enum", "Section", "StrategyName", "u32", "deserialize"] {
            assert!(!error.contains(word), "{file}: {error}");
        }
    }
}

#[test]
fn an_error_in_a_list_says_where_it_is_and_what_is_wrong() {
    let entry = |lines: &str| format!("[[catalog]]\nsku = \"a\"\n{lines}");
    for (file, said) in [
        (&*entry("name = \"x\"\nstock = \"many\""), ["catalog[0].stock", "invalid type"]),
        (&*entry("stock = 1"), ["catalog[0]", "name is missing"]),
        (&*entry("name = \"x\"\nstock = 1\ncolour = 2"), ["catalog[0].colour", "no such key"]),
        ("catalog = 5", ["catalog", "expected a sequence"]),
        ("[lock.redis]\nurl = [[\"redis://a\"]]", ["lock.redis.url[0]", "expected a string"]),
    ] {
        let error = load(file, &[], &[]).unwrap_err();
        assert_eq!(error.key, said[0], "{file}: {error}");
        assert!(error.why.contains(said[1]) && !error.why.contains("did you mean"), "{file}: {error}");
        assert!(!error.why.contains("for key"), "{file}: {error}");
    }
}

#[test]
fn several_servers_are_a_list_in_the_file_and_a_text_elsewhere() {
    let file = "[lock.redis]\nurl = [\"redis://a\", \"redis://b:1\", \"redis://c\"]";
    let text = "redis://a,redis://b:1,redis://c";
    let listed = load(file, &[], &[]).unwrap();
    let variable = load("", &[("STOCKLOCK__LOCK__REDIS__URL", text)], &[]).unwrap();
    let flag = load("", &[], &[("lock.redis.url", text)]).unwrap();
    assert_eq!(listed, variable);
    assert_eq!(listed, flag);
    assert_eq!(listed.lock.redis.expect("the section").url.iter().len(), 3);
}

#[test]
fn an_unknown_variable_and_an_unknown_flag_are_refused() {
    let error = load("", &[("STOCKLOCK__LOCK__STRATGY", "none")], &[]).unwrap_err();
    assert_eq!(error.key, "lock.stratgy", "{error}");
    let error = load("", &[], &[("lock.stratgy", "none")]).unwrap_err();
    assert_eq!(error.key, "lock.stratgy", "{error}");
}

#[test]
fn a_missing_or_broken_file_is_refused_by_name() {
    let missing = Sources { file: Some("no/such/file.toml".into()), ..Sources::default() };
    assert!(Config::load(&missing).unwrap_err().why.contains("no/such/file.toml"));
    assert!(load("[lock", &[], &[]).unwrap_err().why.contains(".toml"));
}

#[test]
fn a_token_that_looks_like_a_number_stays_what_it_is() {
    let config = load("", &[("STOCKLOCK__ADMIN__TOKEN", "00123")], &[]).unwrap();
    assert_eq!(config.admin.token.reveal(), "00123");
    assert!(!format!("{config:?}").contains("00123"), "the token is not for logs");
}

#[test]
fn a_token_in_a_file_outranks_one_elsewhere_and_ends_before_its_newline() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let path = file.to_str().unwrap();
    for section in ["admin", "server"] {
        let (token, token_file) = (format!("{section}.token"), format!("{section}.token_file"));
        let load = || load("", &[], &[(token.as_str(), "elsewhere"), (token_file.as_str(), path)]);
        for content in ["from-the-file", "from-the-file\n", "from-the-file\r\n"] {
            std::fs::write(&file, content).unwrap();
            let config = load().unwrap();
            let token = if section == "admin" { &config.admin.token } else { &config.server.token };
            assert_eq!(token.reveal(), "from-the-file", "{section}");
        }
        for (content, why) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"two\nlines", "visible ASCII"),
            (b"hunter2 ", "visible ASCII"),
            (b"hunter2\xff", "cannot be read"),
        ] {
            std::fs::write(&file, content).unwrap();
            let error = load().unwrap_err();
            assert_eq!(error.key, token_file);
            assert!(error.why.contains(why) && error.why.contains(path), "{error}");
            assert!(!error.why.contains("hunter2"), "{error}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(load().unwrap_err().key, token_file, "it is not there");
    }
}

#[test]
fn tokens_that_can_be_guessed_are_named_where_they_can_be_tried() {
    let (weak, strong) = ("0123456789abcdef0123456789abcde", "0123456789abcdef0123456789abcdef");
    let named = |server: &str, admin: &str, listen: &str, admin_listen: &str| {
        let mut flags = vec![("server.token", server), ("admin.token", admin), ("server.listen", listen)];
        flags.extend((!admin_listen.is_empty()).then_some(("admin.listen", admin_listen)));
        load("", &[], &flags).unwrap().weak_tokens().collect::<Vec<_>>()
    };
    let (here, everywhere) = ("[::1]:1", "0.0.0.0:1");
    assert_eq!(named(weak, weak, everywhere, ""), ["server.token", "admin.token"]);
    assert_eq!(named(weak, weak, here, everywhere), ["admin.token"]);
    // It lists orders, too.
    assert_eq!(named(strong, weak, everywhere, here), ["admin.token"]);
    assert_eq!(named(weak, weak, here, ""), [""; 0]);
    assert_eq!(named(strong, strong, everywhere, everywhere), [""; 0]);
    assert_eq!(named("", "", everywhere, everywhere), [""; 0], "what is not there cannot be guessed");
}

#[test]
fn orders_are_listed_by_anybody_only_where_nobody_comes_from_elsewhere() {
    let is_open = |listen, token| {
        load("", &[], &[("server.listen", listen), ("server.token", token)]).unwrap().server.is_open()
    };
    for listen in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(is_open(listen, "") && !is_open(listen, "t"), "{listen}");
    }
    for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1", "10.0.0.1:1"] {
        assert!(!is_open(listen, ""), "{listen}");
    }
}

#[test]
fn a_burst_is_a_seconds_worth_unless_it_is_said() {
    let rate = |file| load(file, &[], &[]).unwrap().server.rate();
    assert_eq!(rate(""), None);
    assert_eq!(rate("[server]\nrate_limit = 5"), Some((5, 5)));
    assert_eq!(rate("[server]\nrate_limit = 5\nrate_burst = 50"), Some((5, 50)));
}

#[test]
fn the_reference_file_is_the_default_configuration() {
    assert_eq!(load(&reference(), &[], &[]).unwrap(), Config::default());
}

#[test]
fn a_failpoint_is_what_it_says_or_is_refused() {
    let load = |text: &str| load("", &[("STOCKLOCK__FAILPOINTS__BEFORE_COMMIT", text)], &[]);
    assert!(!load("").unwrap().failpoints.any());
    for text in ["abort", "stall 2s", "5% abort", "0.5% stall 1m 500ms", "100% abort"] {
        let config = load(text).unwrap();
        assert!(config.failpoints.any());
        assert_eq!(config.failpoints.before_commit.to_string(), text);
    }
    for text in [
        "stall",
        "stall 0s",
        "stall soon",
        "stall 2h",
        "abort 2s",
        "5 abort",
        "5%",
        "0% abort",
        "101% abort",
        "-1% abort",
        "NaN% abort",
        "% abort",
        "5%abort",
        "abort abort",
        " ",
        "off",
    ] {
        let error = load(text).unwrap_err();
        assert_eq!(error.key, "failpoints.before_commit", "{text}");
        assert!(error.why.starts_with("expected \"abort\" or \"stall 2s\""), "{error}");
    }
}
