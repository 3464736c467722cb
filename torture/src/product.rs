//! The product's public interface: sign-in, organizations, lists.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::node::Node;
use crate::organizations::Behaviour;

/// A command of a debug build starts slowly on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// How many times a read is tried that a recent fault may still affect.
const TRIES: u32 = 5;

#[derive(Clone, Debug)]
pub struct Product {
    node: Arc<Node>,
    session: String,
    http: reqwest::Client,
}

/// A webhook in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub webhook: String,
    pub status: String,
    pub dead_lettered: bool,
}

impl Product {
    /// Signs the super admin in.
    pub async fn sign_in(node: Arc<Node>) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        let (status, printed) = node.run(&["sign-in-link", "admin@localhost"], COMMAND_LIMIT).await?;
        let (_, rest) = printed.split_once("token=").with_context(|| format!("sign-in-link ({status}): {printed}"))?;
        let token = rest.split(|c: char| c.is_whitespace() || "&\"#".contains(c)).next().unwrap_or_default();
        let url = format!("{}/api/auth/verify-magic-link", node.origin());
        let answer = http.post(url).json(&json!({ "token": token })).send().await?;
        let body: Value = answer.json().await.context("verify-magic-link")?;
        let session = body["token"].as_str().with_context(|| format!("verify-magic-link: {body}"))?.to_owned();
        Ok(Self { node, session, http })
    }

    async fn ask(&self, query: &str, variables: Value) -> Result<Value> {
        let request = self.http.post(format!("{}/graphql", self.node.origin())).bearer_auth(&self.session);
        let answer = request.json(&json!({ "query": query, "variables": variables })).send().await?;
        let status = answer.status();
        let mut body: Value = answer.json().await.with_context(|| format!("GraphQL answered {status}"))?;
        ensure!(body.get("errors").is_none_or(Value::is_null), "GraphQL answered {status}: {body}");
        Ok(body["data"].take())
    }

    /// Creates every organization, with its providers and its destination.
    pub async fn set_up(&self, sink: SocketAddr) -> Result<()> {
        let create = "mutation($input: CreateOrganizationInput!) { createOrganization(input: $input) \
                      { organization { id } } }";
        let connect = "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } } }";
        for behaviour in Behaviour::ALL {
            let slug = behaviour.slug();
            let input = json!({ "name": slug, "slug": slug, "plan": "PREMIUM" });
            let created = self.ask(create, json!({ "input": input })).await.context("createOrganization")?;
            for sender in behaviour.senders() {
                let mut input = json!({ "organizationId": created["createOrganization"]["organization"]["id"],
                                        "providerName": sender.graphql(), "secret": sender.secret() });
                if behaviour.is_delivered() {
                    input["destinationUrl"] = json!(format!("http://{sink}/{slug}"));
                }
                self.ask(connect, json!({ "input": input })).await.context("connectProvider")?;
            }
        }
        Ok(())
    }

    /// Every webhook in an organization's lists.
    pub async fn webhooks(&self, organization: Behaviour) -> Result<Vec<Listed>> {
        let query = "query($slug: String!, $after: String) { organization(slug: $slug) { \
                     webhooks(first: 500, after: $after) { pageInfo { hasNextPage endCursor } \
                     nodes { webhookId status deadLetteredAt } } } }";
        let (mut listed, mut after) = (Vec::new(), Value::Null);
        loop {
            let data = self.patiently(query, json!({ "slug": organization.slug(), "after": after })).await?;
            let page = &data["organization"]["webhooks"];
            let Some(nodes) = page["nodes"].as_array() else { bail!("no webhooks in {data}") };
            listed.extend(nodes.iter().map(|node| Listed {
                webhook: node["webhookId"].as_str().unwrap_or_default().to_owned(),
                status: node["status"].as_str().unwrap_or_default().to_owned(),
                dead_lettered: !node["deadLetteredAt"].is_null(),
            }));
            if page["pageInfo"]["hasNextPage"] != true {
                return Ok(listed);
            }
            after = page["pageInfo"]["endCursor"].clone();
        }
    }

    async fn patiently(&self, query: &str, variables: Value) -> Result<Value> {
        let mut tries = 1;
        loop {
            match self.ask(query, variables.clone()).await {
                Err(_) if tries < TRIES => tokio::time::sleep(Duration::from_millis(300)).await,
                answered => return answered,
            }
            tries += 1;
        }
    }

    /// The error code of a person's read now, if any.
    pub async fn error_of_a_read(&self) -> Option<String> {
        self.ask("{ viewer { user { id } } }", json!({})).await.err().map(|error| format!("{error:#}"))
    }
}
