//! The fields of `Query`.

pub(crate) mod demo;
pub(crate) mod platform;
pub(crate) mod tester;
pub(crate) mod viewer;

use async_graphql::MergedObject;

/// Queries, by subject.
#[derive(Default, MergedObject)]
pub struct Query(viewer::ViewerQuery, platform::PlatformQuery, tester::TesterQuery, demo::DemoQuery);
