//! The generations of fencing tokens, which the store keeps.

use futures_util::future::join_all;
use order_service::app::token_generations;
use order_service::lock::Generation;

use crate::STORE;
use crate::helpers::{SKU, Shop, StoreKind};

#[tokio::test(flavor = "multi_thread")]
async fn generations_of_many_keys_are_begun_together_and_each_once() {
    let shop = Shop::with(1, "database", 10, &[]).await;
    assert_eq!(shop.replicas[0].order("A", 1).await.status().as_u16(), 201);
    let replicas = [token_generations(&shop.connect().await), token_generations(&shop.connect().await)];
    let keys: Vec<_> = (0..60).map(|number| format!("comb-{number}")).collect();
    // All keys, in each replica three times, at the same time; of each key the number that all are told.
    let ask = async |keys: &[String], server: &str, lost: Option<i64>| {
        let contenders = replicas.iter().cycle().take(6);
        let asked = contenders.flat_map(|replica| keys.iter().map(move |key| (replica, key)));
        let asking = asked.map(async |(replica, key)| (key, replica.generation(key, server, lost).await));
        let mut told: Vec<(&String, Generation)> = Vec::new();
        for (key, generation) in join_all(asking).await {
            told.push((key, generation.expect("a generation")));
        }
        let of = |key: &String| {
            let generations: Vec<_> =
                told.iter().filter(|(told, _)| *told == key).map(|(_, generation)| *generation).collect();
            assert_eq!(generations.len(), 6);
            let new = generations.iter().filter(|generation| generation.is_new).count();
            let numbers: Vec<_> = generations.iter().map(|generation| generation.number).collect();
            assert!(numbers.iter().all(|number| *number == numbers[0]), "{key}: {generations:?}");
            (numbers[0], new)
        };
        keys.iter().map(of).collect::<Vec<_>>()
    };
    let all = |number: i64, new: usize| vec![(number, new); keys.len()];
    assert_eq!(ask(&keys, "one", None).await, all(0, 1));
    assert_eq!(ask(&keys, "one", None).await, all(0, 0));
    // The first one of a product that has orders comes after their tokens.
    assert_eq!(ask(&[SKU.to_owned()], "one", None).await, [(1, 1)]);
    assert_eq!(ask(&keys, "one", Some(0)).await, all(1, 1), "whose count is lost");
    assert_eq!(ask(&keys, "one", Some(0)).await, all(1, 0), "it is known to be lost already");
    assert_eq!(ask(&keys, "other", None).await, all(2, 1), "another server counts");
    // Some of them in one statement with others.
    let (some, others) = keys.split_at(20);
    let (some, others) = tokio::join!(ask(some, "other", Some(2)), ask(others, "other", None));
    assert_eq!((some, others), (vec![(3, 1); 20], vec![(2, 0); 40]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_cannot_begin_takes_no_other_with_it() {
    let shop = Shop::with(1, "database", 10, &[]).await;
    shop.execute(match STORE {
        StoreKind::Sqlite => {
            "create trigger refuse before insert on token_generations when new.lock_key = 'wrong'
             begin select raise(abort, 'it is wrong'); end"
        }
        StoreKind::Postgres => {
            "create function refuse() returns trigger language plpgsql
             as $$ begin raise exception 'it is wrong'; end $$;
             create trigger refuse before insert on token_generations for each row
             when (new.lock_key = 'wrong') execute function refuse()"
        }
    })
    .await;
    let replica = token_generations(&shop.connect().await);
    let mut keys: Vec<_> = (0..80).map(|number| format!("comb-{number}")).collect();
    keys.push("wrong".into());
    let told = join_all(keys.iter().map(|key| replica.generation(key, "one", None))).await;
    let (wrong, right) = told.split_last().expect("there are some");
    assert!(wrong.as_ref().is_err_and(|error| error.contains("it is wrong")), "{wrong:?}");
    assert!(right.iter().all(|told| *told == Ok(Generation { number: 0, is_new: true })), "{right:?}");
}
