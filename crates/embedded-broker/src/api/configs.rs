//! Describes and alters the settings of topics.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
        incremental_alter_configs_request, incremental_alter_configs_response,
    },
    protocol::StrBytes,
};

use super::{Broker, NODE, Refusal, parts, refusal, text, unavailable};
use crate::{
    log::{Changes, KNOWN, TopicSettings},
    wire::Received,
};

/// Kinds of resources.
const TOPIC: i8 = 2;
const NODE_KIND: i8 = 4;
/// The source of a setting: given for the topic, or the default.
const OF_TOPIC: i8 = 1;
const OF_DEFAULT: i8 = 5;
/// The operations of `IncrementalAlterConfigs` on a setting (KIP-339).
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// How to compute the new settings of a topic.
enum Alteration {
    /// These settings, and the default for all others.
    All(Vec<(String, String)>),
    /// Changes to single settings: operation, name, value.
    Some(Vec<(i8, String, String)>),
}

impl Broker {
    pub(super) async fn describe_configs(
        &self,
        request: DescribeConfigsRequest,
        _: &Received,
    ) -> DescribeConfigsResponse {
        let topics = self.log.topics();
        let results = request.resources.into_iter().map(|resource| {
            let described = match resource.resource_type {
                TOPIC => match topics.named(&resource.resource_name) {
                    Some(topic) => Ok(describe(
                        &topic.settings,
                        &resource,
                        request.include_synonyms,
                    )),
                    None => Err(no_topic()),
                },
                // The node has no settings that a client could change.
                NODE_KIND if *resource.resource_name == NODE.to_string() => Ok(Vec::new()),
                _ => Err(not_a_topic()),
            };
            let (error_code, error_message) = parts(&described);
            DescribeConfigsResult::default()
                .with_error_code(error_code)
                .with_error_message(error_message)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_configs(described.unwrap_or_default())
        });
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    pub(super) async fn alter_configs(
        &self,
        request: AlterConfigsRequest,
        _: &Received,
    ) -> AlterConfigsResponse {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let settings = resource
                .configs
                .into_iter()
                .filter_map(|config| Some((config.name.to_string(), config.value?.to_string())));
            let alteration = Alteration::All(settings.collect());
            let altered = self
                .alter(
                    resource.resource_type,
                    &resource.resource_name,
                    alteration,
                    request.validate_only,
                )
                .await;
            let (error_code, error_message) = parts(&altered);
            responses.push(
                alter_configs_response::AlterConfigsResourceResponse::default()
                    .with_error_code(error_code)
                    .with_error_message(error_message)
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name),
            );
        }
        AlterConfigsResponse::default().with_responses(responses)
    }

    pub(super) async fn incremental_alter_configs(
        &self,
        request: IncrementalAlterConfigsRequest,
        _: &Received,
    ) -> IncrementalAlterConfigsResponse {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let of = |config: incremental_alter_configs_request::AlterableConfig| {
                let value = config.value.unwrap_or_default();
                (
                    config.config_operation,
                    config.name.to_string(),
                    value.to_string(),
                )
            };
            let alteration = Alteration::Some(resource.configs.into_iter().map(of).collect());
            let altered = self
                .alter(
                    resource.resource_type,
                    &resource.resource_name,
                    alteration,
                    request.validate_only,
                )
                .await;
            let (error_code, error_message) = parts(&altered);
            responses.push(
                incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                    .with_error_code(error_code)
                    .with_error_message(error_message)
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name),
            );
        }
        IncrementalAlterConfigsResponse::default().with_responses(responses)
    }

    async fn alter(
        &self,
        kind: i8,
        name: &str,
        alteration: Alteration,
        only_check: bool,
    ) -> Result<(), Refusal> {
        if kind != TOPIC {
            return Err(not_a_topic());
        }
        let name = name.to_owned();
        let work = move |changes: &mut Changes<'_>| {
            let Some(topic) = changes.topic(&name) else {
                return Ok(Err(no_topic()));
            };
            match altered(&topic.settings, &alteration) {
                Ok(settings) if !only_check => changes.set_settings(&topic, settings).map(Ok),
                Ok(_) => Ok(Ok(())),
                Err(refusal) => Ok(Err(refusal)),
            }
        };
        match self.log.change(work).await {
            Ok(altered) => altered,
            Err(_) => Err(unavailable()),
        }
    }
}

fn no_topic() -> Refusal {
    refusal(
        ResponseError::UnknownTopicOrPartition,
        "there is no such topic",
    )
}

fn not_a_topic() -> Refusal {
    refusal(
        ResponseError::InvalidRequest,
        "topics have settings here, nothing else",
    )
}

fn altered(settings: &TopicSettings, alteration: &Alteration) -> Result<TopicSettings, Refusal> {
    let does_not_fit =
        |error: &dyn ToString| refusal(ResponseError::InvalidConfig, error.to_string());
    match alteration {
        Alteration::All(given) => {
            let given = given
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            TopicSettings::from_given(given).map_err(|error| does_not_fit(&error))
        }
        Alteration::Some(some) => {
            let mut settings = settings.clone();
            for (operation, name, value) in some {
                let value = match *operation {
                    SET => Some(value.clone()),
                    DELETE => None,
                    APPEND | SUBTRACT => Some(list(&settings, name, value, *operation == APPEND)),
                    _ => {
                        return Err(refusal(
                            ResponseError::InvalidRequest,
                            "a setting is set, deleted, appended to or subtracted from",
                        ));
                    }
                };
                settings = settings
                    .changed([(name.as_str(), value.as_deref())])
                    .map_err(|error| does_not_fit(&error))?;
            }
            Ok(settings)
        }
    }
}

/// A list with one value added or removed.
fn list(settings: &TopicSettings, name: &str, value: &str, more: bool) -> String {
    let default = KNOWN
        .iter()
        .find(|known| known.name == name)
        .map_or("", |known| known.default);
    let mut values: Vec<&str> = settings
        .value(name)
        .unwrap_or(default)
        .split(',')
        .map(str::trim)
        .filter(|one| *one != value)
        .collect();
    if more {
        values.push(value);
    }
    values.join(",")
}

fn describe(
    settings: &TopicSettings,
    resource: &DescribeConfigsResource,
    with_synonyms: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let is_wanted = |name: &str| match &resource.configuration_keys {
        Some(keys) => keys.iter().any(|key| key.as_str() == name),
        None => true,
    };
    let described = KNOWN
        .iter()
        .filter(|known| is_wanted(known.name))
        .map(|known| {
            let given = settings.value(known.name);
            let name = StrBytes::from_static_str(known.name);
            let value = Some(text(given.unwrap_or(known.default)));
            let source = if given.is_some() {
                OF_TOPIC
            } else {
                OF_DEFAULT
            };
            let synonym = DescribeConfigsSynonym::default()
                .with_name(name.clone())
                .with_value(value.clone())
                .with_source(source);
            DescribeConfigsResourceResult::default()
                .with_name(name)
                .with_value(value)
                .with_config_source(source)
                .with_config_type(known.kind as i8)
                .with_synonyms(if with_synonyms {
                    vec![synonym]
                } else {
                    Vec::new()
                })
        });
    described.collect()
}
