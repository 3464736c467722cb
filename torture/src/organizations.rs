//! The organizations of a run: each has one destination with a certain behavior.

use crate::draw::Draw;
use crate::sign::Sender;

/// The behavior of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// None: storing a webhook is its processing.
    Recorded,
    /// 200 at once.
    Steady,
    /// 500 for the first request of each webhook, then 200.
    Flaky,
    /// 200 after 300 ms.
    Slow,
    /// It never answers.
    Hanging,
    /// Closes the connection instead of answering the first request of each webhook, then 200.
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

    /// Whether webhooks succeed unless attempts are lost.
    #[must_use]
    pub const fn succeeds(self) -> bool {
        !matches!(self, Self::Hanging)
    }

    /// The connected providers.
    #[must_use]
    pub const fn senders(self) -> &'static [Sender] {
        match self {
            Self::Recorded | Self::Steady => &Sender::ALL,
            _ => &[Sender::Github],
        }
    }

    /// One of those that get traffic.
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
