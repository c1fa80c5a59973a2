//! The codes of refused calls (E2). A code is never given another meaning; each has a page that the server itself serves.

use crate::pages;
use axum::http::StatusCode;

macro_rules! codes {
    ($($name:ident $code:literal $status:ident $title:literal;)*) => {
        /// Why a call was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code as people quote it: `E2001`.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// The HTTP status it answers with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),* }
            }

            /// One line for people; the same for every occurrence (RFC 9457 section 3.1.3).
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }
        }
    };
}

codes! {
    MalformedJson       "E2001" BAD_REQUEST            "The body is not JSON";
    InvalidFields       "E2002" UNPROCESSABLE_ENTITY   "Fields of the body are wrong";
    BodyTooLarge        "E2003" PAYLOAD_TOO_LARGE      "The body is too large";
    UnsupportedMedia    "E2004" UNSUPPORTED_MEDIA_TYPE "The body's content type is not supported";
    InvalidParameter    "E2005" BAD_REQUEST            "A parameter of the address is wrong";
    InvalidCursor       "E2006" BAD_REQUEST            "The cursor does not fit this list";
    InvalidHeader       "E2007" BAD_REQUEST            "A header is wrong";
    NulCharacter        "E2008" UNPROCESSABLE_ENTITY   "A text holds a NUL character";
    DuplicateKey        "E2009" BAD_REQUEST            "A JSON object names a member twice";
    TooDeep             "E2010" BAD_REQUEST            "The JSON is nested too deep";
    NumberOutOfRange    "E2011" UNPROCESSABLE_ENTITY   "A number is out of range";
    ChangesGone         "E2012" GONE                   "The changes after this place are no longer kept";
    TokenMissing        "E2101" UNAUTHORIZED           "The call needs a bearer token";
    TokenInvalid        "E2102" UNAUTHORIZED           "The bearer token is unknown, expired or revoked";
    ScopeMissing        "E2103" FORBIDDEN              "The token does not allow this";
    LoopbackOnly        "E2104" FORBIDDEN              "Without tokens only this machine may call";
    UnknownDefinition   "E2201" NOT_FOUND              "No such definition";
    UnknownSaga         "E2202" NOT_FOUND              "No such saga";
    UnknownRoute        "E2203" NOT_FOUND              "No such address";
    MethodNotAllowed    "E2204" METHOD_NOT_ALLOWED     "The address does not know this method";
    UnknownDeadLetter   "E2205" NOT_FOUND              "No such dead letter";
    UnknownToken        "E2206" NOT_FOUND              "No such token";
    UnknownStep         "E2207" NOT_FOUND              "No such step";
    UnknownJob          "E2208" NOT_FOUND              "No such job";
    UnknownDiscrepancy  "E2209" NOT_FOUND              "No such discrepancy";
    NumberTaken         "E2301" CONFLICT               "The number was used with another body";
    InputRefused        "E2302" UNPROCESSABLE_ENTITY   "The input does not fit the definition";
    KeyNotNumber        "E2303" UNPROCESSABLE_ENTITY   "The idempotency key is not the number";
    SagaEnded           "E2304" CONFLICT               "The saga has ended";
    UnknownReason       "E2305" UNPROCESSABLE_ENTITY   "The definition does not know this cancel reason";
    ReasonNotAllowed    "E2306" FORBIDDEN              "This cancel reason belongs to another role";
    UnknownEvent        "E2307" UNPROCESSABLE_ENTITY   "The definition does not know this event";
    DefinitionRefused   "E2308" UNPROCESSABLE_ENTITY   "The definition was refused";
    VersionTaken        "E2309" CONFLICT               "The version exists with another text";
    OperationTaken      "E2310" CONFLICT               "The operation id was used with other content";
    NothingStarts       "E2311" UNPROCESSABLE_ENTITY   "No definition waits for this event";
    AfterPivot          "E2312" CONFLICT               "Too late for this reason";
    TurnedBack          "E2313" CONFLICT               "The saga is giving back already";
    NothingParked       "E2314" CONFLICT               "Nothing is parked or silent there";
    ForcedAlready       "E2315" CONFLICT               "The saga is being forced already";
    RoundsUsedUp        "E2316" CONFLICT               "The step was retried too often";
    JobRuns             "E2317" CONFLICT               "The job is running";
    EventNotYours       "E2318" FORBIDDEN              "The event is another participant's to tell";
    OrderUnfit          "E2319" CONFLICT               "The order does not stand where this needs it";
    DiscrepancyClosed   "E2320" CONFLICT               "The discrepancy was closed in another way";
    KeyTaken            "E2321" CONFLICT               "The key was used for another request";
    SignatureRefused    "E2401" UNAUTHORIZED           "The callback's signature is wrong";
    CallbackStale       "E2402" UNAUTHORIZED           "The callback is outside its time window";
    UnknownProvider     "E2403" NOT_FOUND              "No such provider";
    CallbackUnreadable  "E2404" UNPROCESSABLE_ENTITY   "The callback cannot be read";
    Busy                "E2501" SERVICE_UNAVAILABLE    "Too many calls at once";
    Draining            "E2502" SERVICE_UNAVAILABLE    "The server is stopping";
    TimedOut            "E2503" GATEWAY_TIMEOUT        "The call took too long";
    Internal            "E2504" INTERNAL_SERVER_ERROR  "The server made a mistake";
    StoreUnavailable    "E2505" SERVICE_UNAVAILABLE    "The store does not answer";
    TooMuchWaits        "E2506" SERVICE_UNAVAILABLE    "Too much waits for the broker";
    VersionUnread       "E2507" SERVICE_UNAVAILABLE    "This process cannot read the saga's definition";
}

impl Code {
    /// Its page: cause and cure, in Markdown.
    #[must_use]
    pub fn page(self) -> &'static str {
        pages::find(self.label()).unwrap_or_default()
    }

    /// Seconds after which the same call may succeed, for codes that pass by themselves.
    #[must_use]
    pub fn retry_after_s(self) -> Option<u32> {
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => Some(1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_page_names_its_code_a_cause_and_a_cure() {
        for code in Code::ALL {
            let page = code.page();
            assert!(page.starts_with(&format!("# {}: {}\n", code.label(), code.title())), "{code:?}");
            assert!(page.contains("\n## Cause\n") && page.contains("\n## Cure\n"), "{code:?}");
        }
    }

    #[test]
    fn labels_are_unique_and_belong_to_calls() {
        let labels: HashSet<_> = Code::ALL.iter().map(|code| code.label()).collect();
        assert_eq!(labels.len(), Code::ALL.len());
        assert!(labels.iter().all(|label| label.starts_with("E2") && label.len() == 5));
    }
}
