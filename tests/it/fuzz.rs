//! A short run of the fuzz targets: each seed of `fuzz/corpus`, and thousands of its mutants. Every run
//! is the same, so that a failure can be reproduced. `fuzz/README.md` describes long runs.

#[path = "../../fuzz/targets.rs"]
mod targets;

#[path = "../../fuzz/edge.rs"]
mod edge;

use std::path::Path;

/// `SplitMix64`: small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// Pieces of text that often break parsers.
const PIECES: [&[u8]; 18] = [
    b"\0",
    b"\r\n",
    b"\n\n",
    b": ",
    b",",
    b"=",
    b"t=",
    b"v1=",
    b"v1,",
    b"|",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"-1",
    b"99999999999999999999",
    b"content-length: 7\r\n",
    b"transfer-encoding: chunked\r\n",
    b"{\"id\":\"\\ud800\"}",
    b"/../",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn mutant(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut data = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(data.len() + 1);
        match dice.below(6) {
            0 => data.truncate(at),
            1 if at < data.len() => data[at] ^= 1 << dice.below(8),
            2 => drop(data.splice(at..at, PIECES[dice.below(PIECES.len())].iter().copied())),
            3 => {
                let end = (at + dice.below(16)).min(data.len());
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
            4 => {
                let end = (at + dice.below(16)).min(data.len());
                data.drain(at..end);
            }
            _ => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }
    data.truncate(64 << 10);
    data
}

fn inputs(target: &str, count: usize) -> impl Iterator<Item = Vec<u8>> {
    let (seeds, mut dice) = (seeds(target), Dice(7));
    let first = seeds.clone().into_iter();
    first.chain(std::iter::repeat_with(move || mutant(&seeds, &mut dice)).take(count))
}

#[test]
fn no_bytes_make_a_signature_check_stumble() {
    inputs("signatures", 30_000).for_each(|data| targets::signatures(&data));
}

#[test]
fn no_bytes_make_a_certificate_check_stumble() {
    let authority = crate::senders::Authority::new("fuzz");
    let leaf = authority.leaf(crate::senders::PAYPAL_LEAF, "messageverificationcerts.paypal.com", -1..30);
    let mut seeds = seeds("certificates");
    seeds.push(leaf.into_bytes());
    let mut dice = Dice(7);
    for _ in 0..5_000 {
        targets::certificates(&mutant(&seeds, &mut dice));
    }
}

#[tokio::test(start_paused = true)]
async fn no_bytes_make_the_edge_of_http_stumble() {
    let (mut accepted, mut refused) = (0, 0);
    for data in inputs("edge", 20_000) {
        let answer = edge::connection(&data).await;
        accepted += usize::from(answer.starts_with(b"HTTP/1.1 200"));
        refused += usize::from(answer.starts_with(b"HTTP/1.1 4"));
    }
    // Mutants that are all equal, or reach no code, would prove nothing.
    assert!(accepted > 1_000 && refused > 1_000, "{accepted} accepted, {refused} refused");
}
