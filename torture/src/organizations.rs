//! The organizations of a run: each has one destination, which behaves in one way.

use crate::draw::Draw;
use crate::sign::Sender;

/// How a destination behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// There is none: recording a webhook is its processing.
    Recorded,
    /// 200 at once.
    Steady,
    /// 500 for what comes first of each webhook, then 200.
    Flaky,
    /// 200 after 300 ms.
    Slow,
    /// It never answers.
    Hanging,
    /// It closes the connection instead of answering what comes first of each webhook, then 200.
    Closing,
    /// Like [`Behaviour::Recorded`], for the probes alone.
    Probe,
}

impl Behaviour {
    pub const ALL: [Self; 7] =
        [Self::Recorded, Self::Steady, Self::Flaky, Self::Slow, Self::Hanging, Self::Closing, Self::Probe];

    /// The organization's slug, and the path of its destination.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Steady => "steady",
            Self::Flaky => "flaky",
            Self::Slow => "slow",
            Self::Hanging => "hanging",
            Self::Closing => "closing",
            Self::Probe => "probe",
        }
    }

    #[must_use]
    pub fn of_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|behaviour| behaviour.slug() == slug)
    }

    #[must_use]
    pub const fn is_delivered(self) -> bool {
        !matches!(self, Self::Recorded | Self::Probe)
    }

    /// Webhooks end as a success unless attempts were lost.
    #[must_use]
    pub const fn succeeds(self) -> bool {
        !matches!(self, Self::Hanging)
    }

    /// The providers that are connected.
    #[must_use]
    pub const fn senders(self) -> &'static [Sender] {
        match self {
            Self::Recorded | Self::Steady => &Sender::ALL,
            _ => &[Sender::Github],
        }
    }

    /// One of those that the traffic goes to.
    pub fn draw(draw: &mut Draw) -> Self {
        match draw.between(0..100) {
            0..35 => Self::Recorded,
            35..70 => Self::Steady,
            70..82 => Self::Flaky,
            82..94 => Self::Slow,
            _ => Self::Closing,
        }
    }
}
