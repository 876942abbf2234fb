//! Members: who has which number.

use crate::commit::Entry;
use crate::draft::{Change, Draft};
use crate::ids::{NodeId, Nonce};
use crate::member::{MEMBER_TEXT_MAX, MEMBERS_MAX, Member};
use crate::state::{Refusal, State};

fn member(process: u64, address: &str) -> Member {
    let of = |port: u16| format!("{address}:{port}");
    let (zone, version) = ("a".to_owned(), "1".to_owned());
    Member { nonce: Nonce::new(process), kafka: of(9092), http: of(8080), zone, version }
}

fn changed(state: &State, changes: Vec<Change>) -> Result<State, Refusal> {
    let mut draft = Draft::after(state);
    draft.change_all(changes)?;
    let (commit, next) = draft.seal(state.owner().unwrap(), 0);
    let mut applied = state.clone();
    applied.apply(&commit).unwrap();
    assert_eq!(applied, next);
    assert_eq!(State::restore(applied.snapshot()).unwrap(), applied, "a checkpoint keeps them");
    Ok(applied)
}

fn join(state: &State, process: u64, address: &str) -> State {
    changed(state, vec![Change::Join(member(process, address))]).unwrap()
}

fn nodes(state: &State) -> Vec<(i32, u64)> {
    state.nodes().map(|node| (node.id.get(), node.member.nonce.get())).collect()
}

#[test]
fn numbers_are_given_from_1_on_and_never_to_another_address() {
    let state = join(&join(&super::owned(), 1, "a"), 2, "b");
    assert_eq!(nodes(&state), [(1, 1), (2, 2)]);
    let state = changed(&state, vec![Change::Leave { member: Nonce::new(2) }]).unwrap();
    assert_eq!(nodes(&state), [(1, 1)]);
    let state = join(&state, 3, "c");
    assert_eq!(nodes(&state), [(1, 1), (3, 3)]);
    assert_eq!(state.node_of(Nonce::new(3)), Some(NodeId::new(3)));
    assert_eq!(state.member(Nonce::new(2)), None);
}

#[test]
fn a_process_that_comes_back_at_an_address_takes_the_place_of_the_one_before() {
    let state = join(&join(&super::owned(), 1, "a"), 2, "b");
    let state = join(&state, 7, "a");
    assert_eq!(nodes(&state), [(1, 7), (2, 2)]);
    assert_eq!(
        changed(&state, vec![Change::Leave { member: Nonce::new(1) }]),
        Err(Refusal::UnknownMember { nonce: Nonce::new(1) })
    );
    // One that moves has another number, and one that moves to the address of another takes its place.
    assert_eq!(nodes(&join(&state, 7, "c")), [(2, 2), (3, 7)]);
    assert_eq!(nodes(&join(&state, 7, "b")), [(2, 7)]);
}

#[test]
fn what_is_no_member_is_refused() {
    let state = super::owned();
    let long = "x".repeat(MEMBER_TEXT_MAX);
    for wrong in [
        member(1, &long),
        Member { http: String::new(), ..member(1, "a") },
        Member { zone: "\n".to_owned(), ..member(1, "a") },
    ] {
        let refused = changed(&state, vec![Change::Join(wrong)]);
        assert!(matches!(refused, Err(Refusal::Malformed { .. })), "{refused:?}");
    }
    let many = (0..MEMBERS_MAX as u64).map(|one| Change::Join(member(one, &format!("h{one}")))).collect();
    let full = changed(&state, many).unwrap();
    assert_eq!(changed(&full, vec![Change::Join(member(9999, "one-more"))]), Err(Refusal::TooManyMembers));
    assert_eq!(nodes(&join(&full, 9999, "h5")).len(), MEMBERS_MAX);
}

#[test]
fn the_address_of_the_owner_is_that_of_the_newest_takeover() {
    let state = super::owned();
    let next = super::directory(state.place().directory.epoch.get() + 1, 9);
    let takeover = crate::Takeover { next, address: "b:8080".to_owned() };
    let (commit, after) = Draft::takeover(&state, takeover, Nonce::new(5), 0).unwrap();
    assert!(matches!(commit.entries[..], [Entry::Takeover(_)]));
    assert_eq!((after.owner_address(), after.owner()), ("b:8080", Some(Nonce::new(5))));
    assert_eq!(State::restore(after.snapshot()).unwrap().owner_address(), "b:8080");
}
