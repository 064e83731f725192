//! Redis with users who may do little.

use lab::{Redis, RedisCluster, Server as _};

use crate::backend::Backend;

/// What the README says that a user needs, word by word.
fn least_rule() -> Vec<String> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).expect("the README");
    let (_, rule) = readme.split_once("ACL SETUSER shop on '>PASSWORD' ").expect("the rule");
    let rule = rule.split("```").next().expect("its end");
    rule.split_whitespace()
        .filter(|word| *word != "\\")
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

/// A server with a user `shop`, who may do this alone.
async fn server_with(rule: &[String]) -> Redis {
    let redis = Redis::start().await.expect("it starts");
    allow(&redis, rule).await;
    redis
}

async fn allow(redis: &Redis, rule: &[String]) {
    let mut user = vec!["ACL", "SETUSER", "shop", "reset", "on", ">secret"];
    user.extend(rule.iter().map(String::as_str));
    redis.command(&user).await.expect("the user");
}

fn url_of(redis: &Redis) -> String {
    redis.url().replace("redis://", "redis://shop:secret@")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_rule_is_enough() {
    let rule = least_rule();
    let servers = [server_with(&rule).await, server_with(&rule).await, server_with(&rule).await];
    let urls = servers.each_ref().map(url_of);
    // One server, and a majority of several.
    for url in [urls[0].clone(), urls.join(",")] {
        let backend = Backend::of_redis("redis with a user", &[("lock.redis.url", url.as_str())]).await;
        let (counted, tokens) = crate::count_together(&backend).await;
        assert_eq!(counted, 320);
        assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
        backend.assert_free(&*backend.participant().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_asks_for_two_commands_more() {
    let cluster = RedisCluster::start().await.expect("it starts");
    let mut rule = least_rule();
    rule.extend(["+cluster|slots".to_owned(), "+asking".to_owned()]);
    for node in cluster.nodes() {
        allow(node, &rule).await;
    }
    let url = url_of(&cluster.nodes()[0]);
    let keys = [("lock.redis.url", url.as_str()), ("lock.redis.cluster", "true")];
    let backend = Backend::of_redis("redis cluster with a user", &keys).await;
    let (counted, _) = crate::count_together(&backend).await;
    assert_eq!(counted, 320);
    backend.assert_free(&*backend.participant().await).await;
    for node in cluster.nodes() {
        allow(node, &least_rule()).await;
    }
    let refused = backend.refused(&[]).await;
    assert!(refused.contains("cluster|slots"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_lacks_something_is_refused_and_told_what() {
    let rule = least_rule();
    let redis = server_with(&rule).await;
    let url = url_of(&redis);
    let backend = Backend::of_redis("redis with a user", &[("lock.redis.url", url.as_str())]).await;
    let commands = rule.iter().filter_map(|word| word.strip_prefix('+'));
    // What a connection or an operator's question asks for, and can do without.
    let optional = ["select", "info", "ping", "unwatch", "hmget"];
    for command in commands.filter(|command| !optional.contains(command)) {
        let lacking: Vec<_> =
            rule.iter().filter(|word| word.strip_prefix('+') != Some(command)).cloned().collect();
        allow(&redis, &lacking).await;
        let refused = backend.refused(&[]).await;
        assert!(refused.contains(command) || refused.contains("NOPERM"), "{command}: {refused}");
        assert!(!refused.contains("secret"), "{refused}");
    }
    for (allowed, other) in [("~stocklock:*", "~shop:*"), ("&stocklock:*", "&shop:*")] {
        let lacking: Vec<_> =
            rule.iter().map(|word| if word == allowed { other.to_owned() } else { word.clone() }).collect();
        allow(&redis, &lacking).await;
        let refused = backend.refused(&[]).await;
        assert!(refused.contains("permission") || refused.contains("NOPERM"), "{other}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_a_file_is_the_one() {
    let redis = server_with(&least_rule()).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "secret\n").expect("the file");
    let url = redis.url().replace("redis://", "redis://shop:old@");
    let backend = Backend::of_redis("redis with a user", &[("lock.redis.url", url.as_str())]).await;
    let refused = backend.refused(&[]).await;
    assert!(refused.contains("WRONGPASS") || refused.contains("uthentication"), "{refused}");
    let missing = backend.refused(&[("lock.redis.password_file", "no/such/file")]).await;
    assert!(missing.contains("lock.redis.password_file: no/such/file cannot be read"), "{missing}");
    let file = file.path().to_str().expect("a path");
    let keys = [("lock.redis.url", url.as_str()), ("lock.redis.password_file", file)];
    let backend = Backend::of_redis("redis with a user", &keys).await;
    backend.assert_free(&*backend.participant().await).await;
}
