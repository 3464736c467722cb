//! The faults of a run and their times: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use crate::draw::Draw;
use crate::kind::{Clock, Kind, Setting};

/// One fault of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub kind: Kind,
    /// How long the run continues undisturbed before it.
    pub after: Duration,
    pub lasts: Duration,
    /// The node that it affects, if it affects one.
    pub node: usize,
    /// Decides further details that the kind leaves open.
    pub choice: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub setting: Setting,
    pub steps: Vec<Step>,
}

impl Schedule {
    /// `faults` of any kind that this machine allows, in one randomly chosen setting.
    #[must_use]
    pub fn of_any_kind(seed: u64, faults: usize, allowed: &[Kind]) -> Self {
        let mut draw = Draw::new(seed, "schedule");
        let first = allowed[draw.index(allowed.len())];
        let setting = Self::setting(first, &mut draw);
        let fitting: Vec<Kind> = allowed.iter().copied().filter(|kind| kind.fits(setting)).collect();
        let mut steps = vec![Self::step(first, setting, &mut draw)];
        while steps.len() < faults {
            // Only one promotion per run, because the end of the run compares with the first database.
            let kind = fitting[draw.index(fitting.len())];
            if kind != Kind::Promotion || steps.iter().all(|step: &Step| step.kind != Kind::Promotion) {
                steps.push(Self::step(kind, setting, &mut draw));
            }
        }
        Self { seed, setting, steps }
    }

    /// `faults` of one kind.
    #[must_use]
    pub fn of_kind(seed: u64, faults: usize, kind: Kind) -> Self {
        let mut draw = Draw::new(seed, kind.name());
        let setting = Self::setting(kind, &mut draw);
        let faults = if kind == Kind::Promotion { 1 } else { faults };
        let steps = (0..faults).map(|_| Self::step(kind, setting, &mut draw)).collect();
        Self { seed, setting, steps }
    }

    fn setting(kind: Kind, draw: &mut Draw) -> Setting {
        let needs = kind.needs();
        let more = usize::from(!needs.embedded && draw.chance(40));
        let nodes = (needs.nodes + more).min(2);
        Setting { embedded: needs.embedded, nodes, small_disk: needs.small_disk, clock: needs.clock }
    }

    fn step(kind: Kind, setting: Setting, draw: &mut Draw) -> Step {
        Step {
            kind,
            after: draw.millis(1_500..3_500),
            lasts: draw.millis(kind.lasts()),
            // Only the first node runs under a clock that can be moved.
            node: if setting.clock == Some(Clock::Node) { 0 } else { draw.index(setting.nodes) },
            choice: draw.next(),
        }
    }

    /// The kinds of its faults, each once, in order.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = Vec::new();
        for step in &self.steps {
            if !kinds.contains(&step.kind) {
                kinds.push(step.kind);
            }
        }
        kinds
    }

    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> String {
        self.kinds().iter().map(|kind| kind.name()).collect::<Vec<_>>().join("+")
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.setting)?;
        for Step { kind, after, lasts, node, choice } in &self.steps {
            let (after, lasts) = (after.as_secs_f64(), lasts.as_secs_f64());
            write!(f, "; after {after:.1} s {kind} for {lasts:.1} s (node {node}, choice {choice:016x})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule() {
        for seed in 0..50 {
            assert_eq!(Schedule::of_any_kind(seed, 3, Kind::ALL), Schedule::of_any_kind(seed, 3, Kind::ALL));
            assert_eq!(Schedule::of_kind(seed, 2, Kind::Reset), Schedule::of_kind(seed, 2, Kind::Reset));
        }
        assert_ne!(Schedule::of_any_kind(1, 3, Kind::ALL), Schedule::of_any_kind(2, 3, Kind::ALL));
    }

    #[test]
    fn every_fault_fits_its_setting_and_every_kind_comes() {
        let mut came = std::collections::BTreeSet::new();
        for seed in 0..2_000 {
            let schedule = Schedule::of_any_kind(seed, 3, Kind::ALL);
            assert!(schedule.steps.iter().all(|step| step.kind.fits(schedule.setting)), "{schedule}");
            assert!(schedule.steps.iter().all(|step| step.node < schedule.setting.nodes), "{schedule}");
            came.extend(schedule.steps.iter().map(|step| step.kind));
        }
        assert_eq!(came.len(), Kind::ALL.len());
    }
}
