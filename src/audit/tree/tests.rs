//! Checks against the definitions of RFC 6962, implemented here a second time, and its known vectors.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};
use tlog_tiles::tlog::record_hash;

use super::*;

/// Leaves, roots and proofs of the reference implementation of Certificate Transparency.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hash(text: &str) -> Hash {
    parse_hash(text).unwrap()
}

fn sha256(parts: &[&[u8]]) -> Hash {
    Hash(Sha256::digest(parts.concat()).into())
}

/// `MTH` of RFC 6962, section 2.1, over the hashes of leaves.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves.len() {
        0 => sha256(&[]),
        1 => leaves[0],
        n => {
            let (left, right) = leaves.split_at(n.next_power_of_two() / 2);
            sha256(&[&[1], &naive_root(left).0, &naive_root(right).0])
        }
    }
}

/// `PATH` of RFC 6962, section 2.1.1.
fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    let (mut path, other) = if index < k {
        (naive_path(index, left), naive_root(right))
    } else {
        (naive_path(index - k, right), naive_root(left))
    };
    path.push(other);
    path
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|n| record_hash(&n.to_be_bytes())).collect()
}

/// A tree with all its tiles, full and partial.
fn grown(leaves: &[Hash]) -> (Edge, HashMap<TileId, Vec<Hash>>) {
    let (mut edge, mut full) = (Edge::default(), Vec::new());
    for leaf in leaves {
        edge.push(*leaf, &mut full);
    }
    let mut tiles: HashMap<_, _> = full.into_iter().map(|tile| (tile.id, tile.hashes)).collect();
    for tile in Edge::partial_tiles(edge.size()) {
        tiles.insert(tile.id, edge.partial(tile.id.level).to_vec());
    }
    (edge, tiles)
}

#[test]
fn roots_are_those_of_the_reference() {
    let (mut edge, mut full) = (Edge::default(), Vec::new());
    assert_eq!(edge.root(), sha256(&[]));
    for (leaf, root) in LEAVES.iter().zip(ROOTS) {
        edge.push(record_hash(&hex::decode(leaf).unwrap()), &mut full);
        assert_eq!(edge.root(), hash(root));
    }
    assert!(full.is_empty());
}

#[test]
fn proofs_are_those_of_the_reference() {
    let leaves: Vec<Hash> = LEAVES.iter().map(|leaf| record_hash(&hex::decode(leaf).unwrap())).collect();
    let (_, tiles) = grown(&leaves);
    let root = hash(ROOTS[7]);
    let inclusion = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ];
    assert_eq!(prove(Statement::Inclusion { index: 0 }, 8, root, &tiles).unwrap(), inclusion.map(hash));
    let consistency = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ];
    assert_eq!(prove(Statement::Consistency { from: 6 }, 8, root, &tiles).unwrap(), consistency.map(hash));
    assert!(check_consistency(&consistency.map(hash), 8, root, 6, hash(ROOTS[5])).is_ok());
    assert!(check_consistency(&consistency.map(hash), 8, root, 6, hash(ROOTS[4])).is_err());
}

#[test]
fn a_tree_that_grew_leaf_by_leaf_is_the_tree_of_its_leaves() {
    let leaves = leaves(1_000);
    let (mut edge, mut full) = (Edge::default(), Vec::new());
    for (n, leaf) in leaves.iter().enumerate() {
        edge.push(*leaf, &mut full);
        if n % 37 == 0 || (254..258).contains(&n) {
            assert_eq!(edge.root(), naive_root(&leaves[..=n]), "{n}");
        }
    }
    for tile in &full {
        assert_eq!(tile_root(&tile.hashes), Some(tile.root));
    }
    let ids: Vec<_> = full.iter().map(|tile| (tile.id.level, tile.id.index)).collect();
    assert_eq!(ids, [(0, 0), (0, 1), (0, 2)]);
    assert_eq!((edge.partial(0).len(), edge.partial(1).len()), (1_000 - 768, 3));
}

#[test]
fn a_tree_goes_on_from_its_partial_tiles() {
    for size in [0, 1, 2, 255, 256, 257, 700, 65_535, 65_536, 65_537, 70_001] {
        let (edge, tiles) = grown(&leaves(size));
        let mut partial = Vec::new();
        for tile in Edge::partial_tiles(edge.size()) {
            partial.resize_with(usize::from(tile.id.level) + 1, Vec::new);
            partial[usize::from(tile.id.level)] = tiles[&tile.id].clone();
        }
        let (mut before, mut after) = (edge.clone(), Edge::restore(edge.size(), partial.clone()).unwrap());
        assert_eq!(before.root(), after.root(), "{size}");
        let (mut full_before, mut full_after) = (Vec::new(), Vec::new());
        for leaf in leaves(300) {
            before.push(leaf, &mut full_before);
            after.push(leaf, &mut full_after);
        }
        assert_eq!((before.root(), full_before), (after.root(), full_after), "{size}");
        if size > 0 {
            assert!(Edge::restore(edge.size() + 1, partial).is_err());
        }
    }
}

#[test]
fn every_leaf_is_proved_as_the_rfc_says_and_nothing_else_is() {
    for size in [1, 2, 3, 255, 256, 257, 600] {
        let leaves = leaves(size);
        let (edge, tiles) = grown(&leaves);
        let (count, root) = (edge.size(), edge.root());
        for index in (0..size).step_by(7).chain([size - 1]) {
            let at = index as u64;
            let proof = prove(Statement::Inclusion { index: at }, count, root, &tiles).unwrap();
            assert_eq!(proof, naive_path(index, &leaves));
            assert!(check_inclusion(&proof, count, root, at, leaves[index]).is_ok());
            assert!(check_inclusion(&proof, count, root, at, record_hash(b"another")).is_err());
            assert!(check_inclusion(&proof, count, EMPTY_ROOT, at, leaves[index]).is_err());
            let longer = [&proof[..], &[root]].concat();
            assert!(check_inclusion(&longer, count, root, at, leaves[index]).is_err());
        }
        assert!(matches!(
            prove(Statement::Inclusion { index: count }, count, root, &tiles),
            Err(ProofError::NoSuchLeaf { .. })
        ));
    }
}

#[test]
fn every_earlier_tree_is_the_beginning_of_a_later_one_and_no_other_is() {
    let leaves = leaves(600);
    let (edge, tiles) = grown(&leaves);
    let (size, root) = (edge.size(), edge.root());
    for from in [0, 1, 2, 3, 128, 255, 256, 257, 511, 512, 599, 600] {
        let proof = prove(Statement::Consistency { from }, size, root, &tiles).unwrap();
        let from_root = naive_root(&leaves[..usize::try_from(from).unwrap()]);
        assert!(check_consistency(&proof, size, root, from, from_root).is_ok(), "{from}");
        assert!(check_consistency(&proof, size, root, from, record_hash(b"another")).is_err(), "{from}");
        assert!(check_consistency(&proof, size, record_hash(b"another"), from, from_root).is_err() || from == 0);
    }
    assert!(matches!(
        prove(Statement::Consistency { from: 601 }, size, root, &tiles),
        Err(ProofError::NotLater { .. })
    ));
}

#[test]
fn no_proof_is_made_of_tiles_that_do_not_add_up_to_the_root() {
    let (edge, mut tiles) = grown(&leaves(600));
    let (size, root) = (edge.size(), edge.root());
    let statement = Statement::Inclusion { index: 300 };
    tiles.get_mut(&TileId { level: 0, index: 1 }).unwrap()[44] = record_hash(b"another");
    assert!(matches!(prove(statement, size, root, &tiles), Err(ProofError::Inconsistent)));
    tiles.remove(&TileId { level: 0, index: 1 });
    assert!(matches!(prove(statement, size, root, &tiles), Err(ProofError::NoTile { level: 0, index: 1, .. })));
}

#[test]
fn hashes_are_written_and_read() {
    let hashes = leaves(3);
    assert_eq!(hashes_from_bytes(&hashes_to_bytes(&hashes)), Some(hashes.clone()));
    assert_eq!(hashes_from_bytes(&[0; 33]), None);
    assert_eq!(parse_hash(&hashes[0].to_string()), Some(hashes[0]));
    assert_eq!(parse_hash(&hex::encode(hashes[0].0)), Some(hashes[0]));
    assert_eq!(parse_hash("x"), None);
}
