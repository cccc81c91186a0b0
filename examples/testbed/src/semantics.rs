//! One suite of API semantics for every API server: the one inside the process, the real one, and
//! whatever stands between them and a client.
//!
//! Each case is a short function with a sentence for a name, and works in a namespace of its own,
//! so that cases can run at once and again. [`api_semantics!`](crate::api_semantics) makes each
//! one a test.

pub mod client;
pub mod custom;
pub mod deleting;
pub mod discovering;
pub mod forms;
pub mod paging;
pub mod patching;
pub mod place;
pub mod reading;
pub mod refusing;
pub mod selecting;
pub mod watching;
pub mod writing;

/// Makes one test of every case.
///
/// The argument is a path to an `async fn() -> (Endpoint, Guard)`; the guard is kept until the
/// case is over. With `ignore = "reason"` the tests are run only when asked for.
#[macro_export]
macro_rules! api_semantics {
    ($open:path) => {
        $crate::api_semantics!(@every $open, []);
    };
    ($open:path, ignore = $reason:literal) => {
        $crate::api_semantics!(@every $open, [#[ignore = $reason]]);
    };
    (@every $open:path, $attributes:tt) => {
        $crate::for_each_case!($open, $attributes,
            reading: [
                an_object_is_read_as_it_was_written,
                a_typed_list_names_its_kind_once,
                an_empty_list_has_an_empty_array,
                a_list_is_ordered_by_name,
                a_lists_revision_is_global,
                a_read_sees_the_write_before_it,
                revision_zero_is_whatever_is_at_hand,
                revision_zero_ignores_the_limit,
                not_older_than_is_at_least_that_new,
                exact_is_as_it_was,
                a_revision_of_the_future_times_out,
                a_revision_that_comes_soon_is_waited_for,
            ],
            paging: [
                pages_are_one_list,
                a_page_counts_the_remaining_items,
                a_later_page_is_as_old_as_the_first,
                pages_cross_namespaces,
                a_bad_token_is_refused,
            ],
            selecting: [
                every_label_operator_selects,
                objects_are_selected_by_name,
                pods_are_selected_by_node_and_phase,
                secrets_and_events_have_fields_of_their_own,
                a_selector_that_means_nothing_is_refused,
            ],
            watching: [
                changes_are_told_in_order,
                a_watch_from_nowhere_begins_with_the_state,
                a_watch_from_a_revision_tells_what_came_after,
                a_watch_from_the_future_is_silent,
                a_silent_watch_sends_its_headers,
                leaving_a_selection_is_a_deletion,
                a_watch_of_one_name_hears_of_no_other,
                a_watch_of_all_namespaces_hears_of_each,
                a_bookmark_comes_before_the_end,
                bookmarks_come_only_when_asked_for,
                a_streamed_list_ends_with_a_bookmark,
                a_watch_without_initial_events_begins_now,
                contradicting_watch_options_are_refused,
                a_streamed_list_of_the_future_fails_as_an_event,
                a_watch_from_nonsense_is_refused,
            ],
            writing: [
                a_name_is_generated,
                a_taken_name_is_a_conflict,
                a_client_does_not_choose_what_the_server_owns,
                an_update_of_an_old_revision_is_a_conflict,
                an_update_without_a_revision_overwrites,
                an_update_of_another_uid_is_a_conflict,
                an_update_that_changes_nothing_is_no_write,
                a_lease_is_created_by_an_update,
                the_generation_counts_changes_of_the_spec,
                the_status_has_a_door_of_its_own,
                a_dry_run_leaves_no_trace,
                a_secrets_plain_text_is_encoded,
            ],
            patching: [
                a_json_patch_is_all_or_nothing,
                a_merge_patch_removes_with_null,
                a_strategic_merge_patch_merges_lists_by_key,
                a_strategic_merge_patch_deletes_by_key,
                a_patch_of_an_old_revision_is_a_conflict,
                a_patch_needs_an_object_and_a_known_type,
                apply_creates_and_takes_back,
                apply_over_anothers_field_is_a_conflict,
                a_strategic_merge_patch_keeps_the_order,
                a_patch_does_not_change_identity,
            ],
            deleting: [
                a_deletion_says_what_is_gone,
                a_finalizer_holds_what_is_deleted,
                a_deletion_honours_its_preconditions,
                a_collection_is_deleted_by_selector,
                a_pod_on_a_node_is_given_time,
                a_foreground_deletion_waits_for_the_collector,
                a_terminating_namespace_takes_nothing_new,
                a_later_propagation_policy_wins,
                a_pod_is_bound_and_evicted,
            ],
            forms: [
                a_list_is_shown_as_a_table,
                a_table_includes_what_is_asked_for,
                metadata_is_shown_alone,
                a_watch_of_metadata_shows_nothing_else,
                an_unknown_form_is_not_acceptable,
                a_form_of_another_number_is_not_acceptable,
            ],
            custom: [
                an_irregular_plural_is_served,
                a_crd_is_established,
                a_custom_update_needs_a_revision,
                a_custom_status_has_a_door_of_its_own,
                a_selectable_field_selects,
                a_custom_table_has_the_crds_columns,
                a_watch_from_too_long_ago_is_expired,
                custom_pages_end_with_an_empty_token,
                a_crd_comes_and_goes_in_discovery,
            ],
            refusing: [
                an_absent_object_is_named,
                an_unknown_group_is_plain_text,
                an_unknown_resource_is_a_status,
                a_wrong_method_is_not_allowed,
                a_wrong_body_is_refused,
                an_unknown_media_type_is_refused,
                an_invalid_name_is_refused,
                an_absent_namespace_takes_nothing,
                contradicting_list_options_are_refused,
                a_stranger_is_unauthorized,
            ],
            discovering: [
                the_server_says_how_it_is,
                legacy_discovery_lists_groups_and_resources,
                aggregated_discovery_is_one_answer,
                a_caller_asks_what_it_may_do,
                the_systems_namespaces_are_there,
                an_unknown_version_is_missing_as_a_status,
            ],
        );
    };
}

/// Used by [`api_semantics!`](crate::api_semantics).
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_case {
    ($open:path, $attributes:tt, $($area:ident: [$($case:ident,)*],)*) => {
        $(mod $area {
            $($crate::for_each_case!(@one $open, $attributes, $area, $case);)*
        })*
    };
    (@one $open:path, [$($attribute:tt)*], $area:ident, $case:ident) => {
        #[tokio::test]
        $($attribute)*
        async fn $case() -> Result<(), $crate::client::Error> {
            let (endpoint, _guard) = $open().await;
            let client = $crate::client::Client::new(&endpoint)?;
            $crate::semantics::$area::$case(&client).await
        }
    };
}
