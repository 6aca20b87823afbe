//! The attributes that describe this process in every span: OpenTelemetry's resource.
//!
//! See <https://opentelemetry.io/docs/specs/semconv/resource/service/>.

use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, resource::TelemetryResourceDetector};
use uuid::Uuid;

use super::settings::TraceSettings;

/// The attribute with the name of a process.
const NAME: &str = "service.name";

/// The attributes of a process unless the variables set others: its name, its version, and a new id that distinguishes
/// replicas.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "an id that decides nothing")]
pub fn own_attributes(service: &str) -> [(String, String); 3] {
    [
        (NAME, format!("tandem-{service}")),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", Uuid::new_v4().to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
}

impl TraceSettings {
    /// The attributes from the variables. Later ones take precedence, so `OTEL_SERVICE_NAME` overrides
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub fn given_attributes(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let name = self.service_name.iter();
        let name = name.map(|name| (NAME.to_owned(), name.clone()));
        self.resource.iter().cloned().chain(name)
    }
}

/// The whole resource, including the library's own attributes.
pub(crate) fn resource(service: &str, settings: &TraceSettings) -> Resource {
    let attributes = own_attributes(service)
        .into_iter()
        .chain(settings.given_attributes());
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value)))
        .build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use opentelemetry::Key;

    use super::*;

    fn said(variables: &[(&str, &str)], key: &'static str) -> Option<String> {
        let settings = TraceSettings::from_variables(|name| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://there:4318".to_owned()),
            _ => variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned()),
        });
        let resource = resource("orders", &settings.unwrap().unwrap());
        resource.get(&Key::new(key)).map(|value| value.to_string())
    }

    #[test]
    fn a_name_by_its_own_variable_wins_over_one_among_the_attributes_and_that_over_the_default() {
        let among = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=among,team=blue");
        let own = ("OTEL_SERVICE_NAME", "own");
        let name = |variables: &[(&str, &str)]| said(variables, "service.name");
        assert_eq!(name(&[]).as_deref(), Some("tandem-orders"));
        assert_eq!(name(&[among]).as_deref(), Some("among"));
        assert_eq!(name(&[own]).as_deref(), Some("own"));
        assert_eq!(name(&[among, own]).as_deref(), Some("own"));
        assert_eq!(said(&[among], "team").as_deref(), Some("blue"));
    }

    #[test]
    fn two_replicas_do_not_look_alike_and_say_which_version_and_library_they_have() {
        let id = |variables: &[(&str, &str)]| said(variables, "service.instance.id").unwrap();
        assert_eq!(Uuid::parse_str(&id(&[])).unwrap().get_version_num(), 4);
        assert_ne!(id(&[]), id(&[]));
        let given = ("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7");
        assert_eq!(id(&[given]), "pod-7");
        let version = said(&[], "service.version");
        assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
        let language = said(&[], "telemetry.sdk.language");
        assert_eq!(language.as_deref(), Some("rust"));
    }
}
