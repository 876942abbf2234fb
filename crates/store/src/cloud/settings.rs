//! From the environment to a client of a cloud store.
//!
//! S3 follows the AWS tools: variables first, then the profile (`AWS_PROFILE`, or `default`), then what the machine or
//! container provides. `AWS_ENDPOINT_URL_S3` goes before `AWS_ENDPOINT_URL`; an endpoint of our own means path style,
//! and one that begins with `http://` means plain HTTP.
//!
//! GCS reads `GOOGLE_*`: `GOOGLE_APPLICATION_CREDENTIALS`, `GOOGLE_SERVICE_ACCOUNT`, `GOOGLE_BASE_URL`; and `STORAGE_EMULATOR_HOST`. Azure
//! reads `AZURE_*`: `AZURE_STORAGE_ACCOUNT_NAME` and `…_KEY`, or `AZURE_STORAGE_ACCOUNT` and `AZURE_STORAGE_KEY`, the variables of its
//! identities, `AZURE_STORAGE_ENDPOINT`, `AZURE_STORAGE_USE_EMULATOR`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, RetryConfig, StaticCredentialProvider};

use super::Bucket;
use super::profile::{self, Profile};
use super::status::{Dates, StatusConnector};
use crate::address::Address;
use crate::redact::redact_url;
use crate::remedy::Origins;

/// Longest time of a request as the client sees it. The limit that counts is the policy's, and shorter.
const REQUEST_TIME_MAX: &str = "600 seconds";

/// A reason why a client can't be made.
pub(crate) type SettingsError = Box<dyn Error + Send + Sync>;

/// The process's environment, or a test's.
pub(crate) type Variables = BTreeMap<String, String>;

/// The variables that are text; others can't be settings.
pub(crate) fn environment() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

pub(crate) fn s3(bucket: &str, variables: &Variables, dates: &Arc<Dates>) -> Result<Arc<dyn Bucket>, SettingsError> {
    let connector = StatusConnector::new(dates).completing_if_absent();
    Ok(Arc::new(s3_builder(bucket, variables)?.with_http_connector(connector).build()?))
}

/// Where what [`s3`] uses comes from, in words.
pub(crate) fn s3_origins(bucket: &str, variables: &Variables) -> Result<Origins, SettingsError> {
    let variable = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let profile = read_profile(variables)?;
    let of_profile = |name: &str| profile.get(name).filter(|value| !value.is_empty());
    let name = variable("AWS_PROFILE").or(variable("AWS_DEFAULT_PROFILE")).map_or("default", String::as_str);
    // Enough to tell one key from another; it is no secret, but it is nobody else's business either.
    let shown = |id: &str| format!("access key '{}…'", id.chars().take(4).collect::<String>());
    let credentials = if variable("AWS_SKIP_SIGNATURE").is_some_and(|skips| skips == "true") {
        "nobody (AWS_SKIP_SIGNATURE)".to_owned()
    } else if let Some(id) = variable("AWS_ACCESS_KEY_ID") {
        format!("the {} of AWS_ACCESS_KEY_ID", shown(id))
    } else if variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() {
        "the web identity of AWS_WEB_IDENTITY_TOKEN_FILE".to_owned()
    } else if let Some(id) = of_profile("aws_access_key_id") {
        format!("the {} of profile '{name}' in the AWS files", shown(id))
    } else if ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        .iter()
        .any(|name| variable(name).is_some())
    {
        "the role of this container".to_owned()
    } else {
        format!("the role of this machine, since there is neither AWS_ACCESS_KEY_ID nor a key in profile '{name}'")
    };
    let first = |names: &[&str], of_profile: Option<&String>| {
        let of_variable = names.iter().find_map(|name| Some(format!("{} of {name}", variable(name)?)));
        of_variable.or_else(|| Some(format!("{} of profile '{name}'", of_profile?)))
    };
    let region = first(&["AWS_REGION", "AWS_DEFAULT_REGION"], of_profile("region"));
    let endpoint = first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"], of_profile("endpoint_url"));
    Ok(Origins {
        credentials,
        region: region.unwrap_or_else(|| "us-east-1, by default".to_owned()),
        endpoint: endpoint.unwrap_or_else(|| "AWS, by default (no AWS_ENDPOINT_URL_S3)".to_owned()),
        address: Some(s3_address(bucket, variables)?),
    })
}

/// How others reach what [`s3`] reaches.
fn s3_address(bucket: &str, variables: &Variables) -> Result<Address, SettingsError> {
    let builder = s3_builder(bucket, variables)?;
    let value = |key: AmazonS3ConfigKey| builder.get_config_value(&key);
    let is_virtual = value(AmazonS3ConfigKey::VirtualHostedStyleRequest).is_some_and(|value| value == "true");
    Ok(Address {
        endpoint: value(AmazonS3ConfigKey::Endpoint).map(|endpoint| redact_url(&endpoint).into_owned()),
        region: value(AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned()),
        path_style: !is_virtual,
    })
}

pub(crate) fn gcs(bucket: &str, variables: &Variables, dates: &Arc<Dates>) -> Result<Arc<dyn Bucket>, SettingsError> {
    Ok(Arc::new(gcs_builder(bucket, variables)?.with_http_connector(StatusConnector::new(dates)).build()?))
}

pub(crate) fn azure(
    container: &str,
    variables: &Variables,
    dates: &Arc<Dates>,
) -> Result<Arc<dyn Bucket>, SettingsError> {
    Ok(Arc::new(azure_builder(container, variables)?.with_http_connector(StatusConnector::new(dates)).build()?))
}

pub(super) fn gcs_builder(bucket: &str, variables: &Variables) -> Result<GoogleCloudStorageBuilder, SettingsError> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIME_MAX);
    for (name, value) in variables.iter().filter(|(name, value)| name.starts_with("GOOGLE_") && !value.is_empty()) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let variable = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    if let Some(emulator) = variable("STORAGE_EMULATOR_HOST") {
        // An emulator has no accounts. Google's own clients take it with and without a scheme.
        let endpoint = if emulator.contains("://") { emulator.clone() } else { format!("http://{emulator}") };
        builder = builder.with_skip_signature(true).with_config(GoogleConfigKey::BaseUrl, endpoint);
    }
    if builder.get_config_value(&GoogleConfigKey::SkipSignature).is_some_and(|skips| skips == "true") {
        // SUBTLE: writes ask for a token even when nothing is signed, and without one here they would ask the machine's metadata
        // service, which is not there, or gives a real one away.
        let none = GcpCredential { bearer: "none".to_owned() };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(none)));
    }
    if let Some(endpoint) = builder.get_config_value(&GoogleConfigKey::BaseUrl) {
        builder = builder
            .with_config(GoogleConfigKey::BaseUrl, endpoint.trim_end_matches('/'))
            .with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), allows_http(&endpoint)?);
    }
    Ok(builder.with_bucket_name(bucket).with_retry(no_retries()))
}

pub(super) fn azure_builder(container: &str, variables: &Variables) -> Result<MicrosoftAzureBuilder, SettingsError> {
    let mut builder =
        MicrosoftAzureBuilder::new().with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIME_MAX);
    // What the Azure command line calls otherwise comes first, so that the longer names win.
    let of_command_line =
        [("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName), ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey)];
    let variable = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    for (name, key) in of_command_line {
        if let Some(value) = variable(name) {
            builder = builder.with_config(key, value);
        }
    }
    for (name, value) in variables.iter().filter(|(name, value)| name.starts_with("AZURE_") && !value.is_empty()) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = variable("IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    if let Some(endpoint) = builder.get_config_value(&AzureConfigKey::Endpoint) {
        builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::AllowHttp), allows_http(&endpoint)?);
    }
    Ok(builder.with_container_name(container).with_retry(no_retries()))
}

/// Whether an endpoint of our own is one of plain HTTP.
fn allows_http(endpoint: &str) -> Result<&'static str, SettingsError> {
    match endpoint.split_once("://") {
        Some(("http", _)) => Ok("true"),
        Some(("https", _)) => Ok("false"),
        _ => Err(format!("the endpoint '{endpoint}' begins with neither http:// nor https://").into()),
    }
}

pub(super) fn s3_builder(bucket: &str, variables: &Variables) -> Result<AmazonS3Builder, SettingsError> {
    let mut builder = AmazonS3Builder::new()
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIME_MAX)
        .with_unsigned_payload(true);
    for (name, value) in variables.iter().filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty()) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let variable = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let profile = read_profile(variables)?;
    let of_profile = |name: &str| profile.get(name).filter(|value| !value.is_empty());
    let own_keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"];
    if !own_keys.iter().any(|name| variable(name).is_some())
        && let (Some(id), Some(secret)) = (of_profile("aws_access_key_id"), of_profile("aws_secret_access_key"))
    {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = of_profile("aws_session_token") {
            builder = builder.with_token(token);
        }
    }
    if let (None, None, Some(region)) = (variable("AWS_REGION"), variable("AWS_DEFAULT_REGION"), of_profile("region")) {
        builder = builder.with_region(region);
    } else if let Some(region) = variable("AWS_REGION").or(variable("AWS_DEFAULT_REGION")) {
        builder = builder.with_region(region);
    }
    let endpoints = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let endpoint = endpoints.iter().find_map(|name| variable(name)).or(of_profile("endpoint_url"));
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(allows_http(endpoint)? == "true");
    } else if !bucket.contains('.') && variable("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").is_none() {
        // What AWS asks for; a name with dots has no certificate there.
        builder = builder.with_virtual_hosted_style_request(true);
    }
    Ok(builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch).with_retry(no_retries()))
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// The profile that the variables choose; empty if none was chosen and there is none by default.
fn read_profile(variables: &Variables) -> Result<Profile, SettingsError> {
    let named = variables.get("AWS_PROFILE").or(variables.get("AWS_DEFAULT_PROFILE")).filter(|name| !name.is_empty());
    let name = named.map_or("default", String::as_str);
    let credentials = read_file(variables, "AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
    let config = read_file(variables, "AWS_CONFIG_FILE", "config")?;
    match (profile::read(name, &credentials, &config), named) {
        (Some(profile), _) => Ok(profile),
        (None, None) => Ok(Profile::new()),
        (None, Some(name)) => {
            Err(format!("AWS_PROFILE names the profile '{name}', which is in neither AWS file").into())
        }
    }
}

/// The text of one of the two files; empty if there is none.
fn read_file(variables: &Variables, variable: &str, name: &str) -> Result<String, SettingsError> {
    let home = || Some(Path::new(variables.get("HOME")?).join(".aws").join(name));
    let Some(path) = variables.get(variable).map(PathBuf::from).or_else(home) else { return Ok(String::new()) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("cannot read '{}': {error}", path.display()).into()),
    }
}
