-- platform.sql: the tables of a medical billing platform, for the tests and
-- the benchmarks.
--
-- The shape is that of the live application: more columns than the extension
-- reads, the application's own keys and indexes.  Everything is created in
-- the first schema of the search path.  Nearly every column has a default, so
-- that a test names only what it is about.  The foreign keys of the
-- application are in platform_fk.sql, since most tests do without them.

CREATE TABLE providers (
    provider_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    status varchar(20) NOT NULL DEFAULT 'ACTIVE',
    billing_number varchar(10),
    cpsa_registration varchar(10),
    first_name varchar(50) NOT NULL DEFAULT '',
    last_name varchar(50) NOT NULL DEFAULT '',
    specialty_code varchar(10) NOT NULL DEFAULT 'GP',
    physician_type varchar(20) NOT NULL DEFAULT 'GENERAL',
    onboarding_completed boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE patients (
    patient_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    provider_id uuid,
    phn varchar(9),
    phn_province varchar(2) DEFAULT 'AB',
    first_name varchar(50) NOT NULL DEFAULT '',
    last_name varchar(50) NOT NULL DEFAULT '',
    date_of_birth date,
    gender varchar(1),
    phone varchar(24),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE practice_locations (
    location_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    provider_id uuid NOT NULL,
    name varchar(100) NOT NULL DEFAULT 'Clinic',
    functional_centre varchar(10),
    facility_number varchar(10),
    address_line_1 varchar(200),
    city varchar(100),
    province varchar(2) NOT NULL DEFAULT 'AB',
    postal_code varchar(7),
    community_code varchar(10),
    rrnp_eligible boolean NOT NULL DEFAULT false,
    rrnp_rate numeric(8,2),
    is_default boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE claims (
    claim_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    physician_id uuid NOT NULL,
    patient_id uuid DEFAULT gen_random_uuid(),
    claim_type varchar(10) NOT NULL DEFAULT 'AHCIP',
    state varchar(20) NOT NULL DEFAULT 'DRAFT',
    is_clean boolean,
    import_source varchar(20) NOT NULL DEFAULT 'MANUAL',
    import_batch_id uuid,
    shift_id uuid,
    date_of_service date,
    submission_deadline date,
    submitted_batch_id uuid,
    submitted_at timestamptz,
    validation_result jsonb,
    validation_timestamp timestamptz,
    reference_data_version varchar(20),
    ai_coach_suggestions jsonb,
    duplicate_alert jsonb,
    flags jsonb,
    notes text,
    external_reference varchar(40),
    priority smallint NOT NULL DEFAULT 0,
    row_version integer NOT NULL DEFAULT 1,
    created_by uuid,
    updated_by uuid,
    submitted_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

CREATE INDEX claims_physician_state_idx ON claims (physician_id, state);

CREATE TABLE ahcip_claim_details (
    ahcip_detail_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    claim_id uuid NOT NULL UNIQUE,
    ba_number varchar(10),
    functional_centre varchar(10),
    health_service_code varchar(10),
    modifier_1 varchar(6),
    modifier_2 varchar(6),
    modifier_3 varchar(6),
    diagnostic_code varchar(8),
    facility_number varchar(10),
    referral_practitioner varchar(10),
    encounter_type varchar(10) NOT NULL DEFAULT 'CONSULT',
    calls smallint NOT NULL DEFAULT 1,
    time_spent smallint,
    patient_location varchar(10),
    shadow_billing_flag boolean DEFAULT false,
    pcpcm_basket_flag boolean NOT NULL DEFAULT false,
    after_hours_flag boolean NOT NULL DEFAULT false,
    submitted_fee numeric(10,2),
    assessed_fee numeric(10,2),
    assessment_explanatory_codes jsonb
);

CREATE TABLE wcb_claim_details (
    wcb_claim_detail_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    claim_id uuid NOT NULL UNIQUE,
    form_id varchar(5) DEFAULT 'C050E',
    submitter_txn_id varchar(16),
    wcb_claim_number varchar(10),
    report_completion_date date,
    date_of_injury date,
    practitioner_code varchar(8),
    skill_code varchar(10),
    employer_name varchar(100),
    symptoms text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE wcb_invoice_lines (
    wcb_invoice_line_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    wcb_claim_detail_id uuid NOT NULL,
    invoice_detail_id smallint NOT NULL DEFAULT 1,
    line_type varchar(10) NOT NULL DEFAULT 'STANDARD',
    health_service_code varchar(10),
    calls smallint NOT NULL DEFAULT 1,
    amount numeric(10,2),
    adjustment_indicator varchar(10)
);

CREATE INDEX wcb_invoice_lines_detail_idx
    ON wcb_invoice_lines (wcb_claim_detail_id);

CREATE TABLE claim_audit_history (
    audit_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    claim_id uuid NOT NULL,
    action varchar(30) NOT NULL DEFAULT 'claim.state_changed',
    previous_state varchar(20),
    new_state varchar(20),
    changes jsonb,
    actor_id uuid,
    actor_context varchar(20) NOT NULL DEFAULT 'SYSTEM',
    reason text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX claim_audit_history_claim_idx ON claim_audit_history (claim_id);

CREATE TABLE ai_rules (
    rule_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name varchar(100) NOT NULL DEFAULT 'Rule',
    category varchar(30) NOT NULL DEFAULT 'MODIFIER',
    claim_type varchar(10) NOT NULL DEFAULT 'BOTH',
    conditions jsonb NOT NULL DEFAULT '{}',
    suggestion_template jsonb NOT NULL DEFAULT '{}',
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ai_suggestion_events (
    event_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    claim_id uuid,
    suggestion_id uuid,
    rule_id uuid,
    provider_id uuid NOT NULL,
    tier smallint NOT NULL DEFAULT 1,
    event_type varchar(20) NOT NULL DEFAULT 'generated',
    category varchar(30),
    revenue_impact numeric(10,2),
    dismissed_reason text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX ai_suggestion_events_provider_idx
    ON ai_suggestion_events (provider_id);

CREATE TABLE ai_provider_learning (
    learning_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    provider_id uuid NOT NULL,
    rule_id uuid NOT NULL,
    times_shown integer NOT NULL DEFAULT 0,
    times_accepted integer NOT NULL DEFAULT 0,
    times_dismissed integer NOT NULL DEFAULT 0,
    consecutive_dismissals integer NOT NULL DEFAULT 0,
    is_suppressed boolean NOT NULL DEFAULT false,
    priority_adjustment smallint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (provider_id, rule_id)
);
