//! Keys of stores that have no policies, as users of `MinIO`: the files of `deploy/policies/b2` and `r2`, capability by
//! capability in the words of S3's policies.
//!
//! The tables are the stores' own documentation, in their words. B2: "S3-Compatible App Keys" and "Application Key
//! Capabilities" of Backblaze's Cloud Storage documentation, and for what those leave open the permissions that Backblaze's
//! own `b2-sdk-python` (`raw_simulator.py`) and `b2-mcp` (`docs/SDK_ADOPTION_CONTRACT.md`) give each call. R2: "Authentication",
//! "Bucket locks" and "Error codes" of Cloudflare's R2 documentation. What a store gives beyond its table is not known here.

use serde_json::{Value, json};

use crate::buckets::PREFIX;

/// A role's file, and what stands in it for a name.
struct File {
    role: &'static str,
    text: &'static str,
}

const B2: [File; 3] = [
    File {
        role: "writer",
        text: include_str!("../../deploy/policies/b2/writer.json"),
    },
    File {
        role: "pruner",
        text: include_str!("../../deploy/policies/b2/pruner.json"),
    },
    File {
        role: "reader",
        text: include_str!("../../deploy/policies/b2/reader.json"),
    },
];

const R2: [File; 3] = [
    File {
        role: "writer",
        text: include_str!("../../deploy/policies/r2/writer.json"),
    },
    File {
        role: "pruner",
        text: include_str!("../../deploy/policies/r2/pruner.json"),
    },
    File {
        role: "reader",
        text: include_str!("../../deploy/policies/r2/reader.json"),
    },
];

const LOCKS: &str = include_str!("../../deploy/policies/r2/locks.json");

/// What one word of a key allows: on objects, on the listing below its prefix, and on the bucket as a whole.
struct Meaning {
    objects: &'static [&'static str],
    listing: &'static [&'static str],
    bucket: &'static [&'static str],
}

const NOTHING: Meaning = Meaning {
    objects: &[],
    listing: &[],
    bucket: &[],
};

/// Of a capability of B2. A DELETE without a version hides, which is a write there: "The writeFiles permission is necessary when you
/// delete a file by name, and the deleteFiles permission is required when you delete a specific version."
fn meaning_of_capability(capability: &str) -> Meaning {
    match capability {
        "listBuckets" => Meaning {
            bucket: &["s3:GetBucketLocation"],
            ..NOTHING
        },
        "readBuckets" => Meaning {
            bucket: &["s3:GetBucketVersioning"],
            ..NOTHING
        },
        "listFiles" => Meaning {
            listing: &["s3:ListBucket", "s3:ListBucketVersions"],
            bucket: &["s3:ListBucketMultipartUploads"],
            ..NOTHING
        },
        "readFiles" => Meaning {
            objects: &["s3:GetObject", "s3:GetObjectVersion"],
            ..NOTHING
        },
        "writeFiles" => Meaning {
            objects: &[
                "s3:PutObject",
                "s3:DeleteObject",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            ..NOTHING
        },
        "deleteFiles" => Meaning {
            objects: &["s3:DeleteObject", "s3:DeleteObjectVersion"],
            ..NOTHING
        },
        "readBucketRetentions" => Meaning {
            bucket: &["s3:GetBucketObjectLockConfiguration"],
            ..NOTHING
        },
        "readFileRetentions" => Meaning {
            objects: &["s3:GetObjectRetention"],
            ..NOTHING
        },
        "writeFileRetentions" => Meaning {
            objects: &["s3:PutObjectRetention"],
            ..NOTHING
        },
        other => panic!("capability {other} is not in the table"),
    }
}

/// Of a permission group of R2: "Can read, write, and list objects in buckets", and the same without writing. Deleting is part of writing.
fn meaning_of_group(group: &str) -> Meaning {
    match group {
        "Workers R2 Storage Bucket Item Write" => Meaning {
            objects: &[
                "s3:GetObject",
                "s3:PutObject",
                "s3:DeleteObject",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            listing: &["s3:ListBucket"],
            bucket: &["s3:ListBucketMultipartUploads"],
        },
        "Workers R2 Storage Bucket Item Read" => Meaning {
            objects: &["s3:GetObject"],
            listing: &["s3:ListBucket"],
            ..NOTHING
        },
        other => panic!("permission group {other} is not in the table"),
    }
}

/// The policies of the three roles of B2 for this bucket, by role.
pub(crate) fn b2(bucket: &str) -> Vec<(&'static str, String)> {
    let policy = |file: &File| {
        let key: Value = serde_json::from_str(&file.text.replace("PREFIX", PREFIX)).unwrap();
        assert_eq!(key["keyName"], format!("synapse-backup-{}", file.role));
        assert_eq!((&key["accountId"], &key["bucketId"]), (&json!("ACCOUNT_ID"), &json!("BUCKET_ID")));
        let meanings: Vec<Meaning> = words(&key["capabilities"]).into_iter().map(meaning_of_capability).collect();
        (file.role, policy_of(bucket, key["namePrefix"].as_str().unwrap(), &meanings, &[]))
    };
    B2.iter().map(policy).collect()
}

/// The policies of the three roles of R2. A token is for a whole bucket; the locks hold against all of them.
pub(crate) fn r2(bucket: &str, locks: &[String]) -> Vec<(&'static str, String)> {
    let policy = |file: &File| {
        let token: Value = serde_json::from_str(&file.text.replace("BUCKET", bucket)).unwrap();
        assert_eq!(token["name"], format!("synapse-backup-{}", file.role));
        let [policy] = token["policies"].as_array().unwrap().as_slice() else {
            panic!("one policy: {token}");
        };
        assert_eq!(policy["effect"], "allow");
        let resource = format!("com.cloudflare.edge.r2.bucket.ACCOUNT_ID_default_{bucket}");
        assert_eq!(policy["resources"], json!({ resource: "*" }));
        let groups = policy["permission_groups"].as_array().unwrap();
        let meanings: Vec<Meaning> = groups
            .iter()
            .map(|group| meaning_of_group(group["name"].as_str().unwrap()))
            .collect();
        (file.role, policy_of(bucket, "", &meanings, locks))
    };
    R2.iter().map(policy).collect()
}

/// The prefixes that the locks of R2 cover.
pub(crate) fn r2_locks() -> Vec<String> {
    let locks: Value = serde_json::from_str(&LOCKS.replace("PREFIX", PREFIX)).unwrap();
    let rules = locks["rules"].as_array().unwrap();
    assert!(rules.iter().all(|rule| rule["enabled"] == true), "{locks}");
    rules.iter().map(|rule| rule["prefix"].as_str().unwrap().to_owned()).collect()
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

/// All of it in one policy. `MinIO` asks for a version's deletion only whether it is denied, so what no word gives is denied here; and
/// so is every deletion below a lock. That a lock refuses overwriting, too, no policy can say.
fn policy_of(bucket: &str, prefix: &str, meanings: &[Meaning], locks: &[String]) -> String {
    let all = |part: fn(&Meaning) -> &'static [&'static str]| -> Vec<&str> { meanings.iter().flat_map(part).copied().collect() };
    let [objects, listing, whole] = [all(|one| one.objects), all(|one| one.listing), all(|one| one.bucket)];
    let never: Vec<&str> = ["s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutBucketVersioning"]
        .into_iter()
        .filter(|action| !objects.contains(action))
        .collect();
    let (arn, below) = (format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/{prefix}*"));
    let mut statements = vec![
        json!({ "Effect": "Allow", "Action": objects, "Resource": [below] }),
        json!({
            "Effect": "Allow", "Action": listing, "Resource": [arn],
            "Condition": { "StringLike": { "s3:prefix": [format!("{prefix}*")] } }
        }),
        json!({ "Effect": "Deny", "Action": never, "Resource": [arn, format!("{arn}/*")] }),
    ];
    if !whole.is_empty() {
        statements.push(json!({ "Effect": "Allow", "Action": whole, "Resource": [arn] }));
    }
    if !locks.is_empty() {
        let locked: Vec<String> = locks.iter().map(|lock| format!("{arn}/{lock}*")).collect();
        statements.push(json!({ "Effect": "Deny", "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"], "Resource": locked }));
    }
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}
