//! What statuses mean, and how the environment becomes settings.

mod http;

use object_store::aws::AmazonS3ConfigKey as Setting;

use object_store::ClientConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;

use super::settings::{Variables, azure, azure_builder, gcs, gcs_builder, s3_builder};
use super::*;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn setting(variables: &Variables, setting: Setting) -> Option<String> {
    s3_builder("bucket", variables).unwrap().get_config_value(&setting)
}

#[test]
fn no_status_that_may_hide_an_applied_create_counts_as_not_applied() {
    for status in [408, 429, 500, 502, 503, 504, 599] {
        assert!(matches!(kind_of_status(status), FailureKind::Doubt | FailureKind::Throttled), "{status}");
    }
    for status in [304, 409, 412] {
        assert_eq!(kind_of_status(status), FailureKind::Exists);
    }
    for status in [301, 307, 400, 401, 403, 405, 411, 413, 501] {
        assert_eq!(kind_of_status(status), FailureKind::Refused, "{status}");
    }
}

#[test]
fn the_s3_endpoint_goes_first_and_decides_about_plain_http() {
    let mut given = variables(&[("AWS_ENDPOINT_URL", "https://general:1"), ("AWS_REGION", "eu-1")]);
    assert_eq!(setting(&given, Setting::Endpoint).unwrap(), "https://general:1");
    let http = Setting::Client(object_store::ClientConfigKey::AllowHttp);
    assert_eq!(setting(&given, http).unwrap(), "false");
    given.insert("AWS_ENDPOINT_URL_S3".into(), "http://127.0.0.1:9".into());
    assert_eq!(setting(&given, Setting::Endpoint).unwrap(), "http://127.0.0.1:9");
    assert_eq!(setting(&given, http).unwrap(), "true");
    assert_eq!(setting(&given, Setting::VirtualHostedStyleRequest).unwrap(), "false");
    assert_eq!(setting(&given, Setting::Region).unwrap(), "eu-1");
    assert_eq!(setting(&variables(&[]), Setting::VirtualHostedStyleRequest).unwrap(), "true");
    assert_eq!(setting(&variables(&[]), Setting::UnsignedPayload).unwrap(), "true");
}

#[test]
fn a_profile_gives_what_the_variables_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let (credentials, config) = (directory.path().join("credentials"), directory.path().join("config"));
    std::fs::write(
        &credentials,
        "# keys\n[default]\naws_access_key_id=D\naws_secret_access_key=d\n\n[ work ]\naws_access_key_id = W # mine\naws_secret_access_key = w=/+\naws_session_token=t\n",
    )
    .unwrap();
    std::fs::write(
        &config,
        "[profile work]\nregion = eu-central-1\ns3 =\n  region = nested\nendpoint_url = http://localhost:5\n[default]\nregion=x\n",
    )
    .unwrap();
    let mut given = variables(&[
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()),
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
    ]);
    assert_eq!(setting(&given, Setting::AccessKeyId).unwrap(), "D");
    given.insert("AWS_PROFILE".into(), "work".into());
    for (key, value) in [
        (Setting::AccessKeyId, "W"),
        (Setting::SecretAccessKey, "w=/+"),
        (Setting::Token, "t"),
        (Setting::Region, "eu-central-1"),
        (Setting::Endpoint, "http://localhost:5"),
    ] {
        assert_eq!(setting(&given, key).unwrap(), value);
    }
    given.extend(variables(&[("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e")]));
    assert_eq!(setting(&given, Setting::AccessKeyId).unwrap(), "E");
    assert_eq!(setting(&given, Setting::Token), None, "the token belongs to the profile's keys");
    given.insert("AWS_PROFILE".into(), "missing".into());
    assert!(s3_builder("bucket", &given).unwrap_err().to_string().contains("'missing'"));
}

#[test]
fn gcs_takes_its_credentials_and_endpoint_from_the_variables() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.json");
    let setting = |given: &Variables, key| gcs_builder("bucket", given).unwrap().get_config_value(&key);
    let mut given = variables(&[("GOOGLE_APPLICATION_CREDENTIALS", key.to_str().unwrap()), ("GOOGLE_BASE_URL", "")]);
    assert_eq!(setting(&given, GoogleConfigKey::ApplicationCredentials).unwrap(), key.to_str().unwrap());
    assert_eq!(setting(&given, GoogleConfigKey::BaseUrl), None, "an empty variable is none");
    assert!(
        gcs("bucket", &given, &Arc::default()).unwrap_err().to_string().contains("key.json"),
        "a file that is missing is named"
    );
    std::fs::write(&key, r#"{"type":"authorized_user","client_id":"i","client_secret":"s","refresh_token":"r"}"#)
        .unwrap();
    gcs("bucket", &given, &Arc::default()).unwrap();
    given.insert("GOOGLE_BASE_URL".into(), "https://storage.example:1/".into());
    assert_eq!(setting(&given, GoogleConfigKey::BaseUrl).unwrap(), "https://storage.example:1");
    assert_eq!(setting(&given, GoogleConfigKey::Client(ClientConfigKey::AllowHttp)).unwrap(), "false");
    gcs("bucket", &given, &Arc::default()).unwrap();
    given.insert("GOOGLE_BASE_URL".into(), "storage.example".into());
    assert!(gcs("bucket", &given, &Arc::default()).unwrap_err().to_string().contains("'storage.example'"));
}

#[test]
fn an_emulator_of_gcs_is_asked_without_credentials() {
    for host in ["127.0.0.1:4443", "http://127.0.0.1:4443/"] {
        let given = variables(&[("STORAGE_EMULATOR_HOST", host)]);
        let builder = gcs_builder("bucket", &given).unwrap();
        let setting = |key| builder.get_config_value(&key).unwrap();
        assert_eq!(setting(GoogleConfigKey::BaseUrl), "http://127.0.0.1:4443");
        assert_eq!(setting(GoogleConfigKey::SkipSignature), "true");
        assert_eq!(setting(GoogleConfigKey::Client(ClientConfigKey::AllowHttp)), "true");
        gcs("bucket", &given, &Arc::default()).unwrap();
    }
}

#[test]
fn azure_takes_its_credentials_and_endpoint_from_the_variables() {
    let setting = |given: &Variables, key| azure_builder("container", given).unwrap().get_config_value(&key);
    assert!(
        azure("container", &variables(&[]), &Arc::default())
            .unwrap_err()
            .to_string()
            .to_lowercase()
            .contains("account")
    );
    let mut given = variables(&[("AZURE_STORAGE_ACCOUNT", "short"), ("AZURE_STORAGE_KEY", "c2hvcnQ=")]);
    assert_eq!(setting(&given, AzureConfigKey::AccountName).unwrap(), "short");
    assert_eq!(setting(&given, AzureConfigKey::AccessKey).unwrap(), "c2hvcnQ=");
    azure("container", &given, &Arc::default()).unwrap();
    given.extend(variables(&[("AZURE_STORAGE_ACCOUNT_NAME", "long"), ("AZURE_STORAGE_ACCOUNT_KEY", "bG9uZw==")]));
    assert_eq!(setting(&given, AzureConfigKey::AccountName).unwrap(), "long");
    assert_eq!(setting(&given, AzureConfigKey::AccessKey).unwrap(), "bG9uZw==");
    let http = AzureConfigKey::Client(ClientConfigKey::AllowHttp);
    for (endpoint, plain) in [("http://127.0.0.1:10000/long", "true"), ("https://long.example", "false")] {
        given.insert("AZURE_STORAGE_ENDPOINT".into(), endpoint.into());
        assert_eq!(setting(&given, AzureConfigKey::Endpoint).unwrap(), endpoint);
        assert_eq!(setting(&given, http).unwrap(), plain);
        azure("container", &given, &Arc::default()).unwrap();
    }
    given.insert("AZURE_STORAGE_ENDPOINT".into(), "long.example".into());
    assert!(azure("container", &given, &Arc::default()).unwrap_err().to_string().contains("'long.example'"));
    azure("container", &variables(&[("AZURE_STORAGE_USE_EMULATOR", "true")]), &Arc::default()).unwrap();
}
