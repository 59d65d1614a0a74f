-- platform_fk.sql: the foreign keys of the application, for the tests that
-- want them.  Run after platform.sql.

ALTER TABLE patients
    ADD FOREIGN KEY (provider_id) REFERENCES providers;
ALTER TABLE practice_locations
    ADD FOREIGN KEY (provider_id) REFERENCES providers;
ALTER TABLE claims
    ADD FOREIGN KEY (physician_id) REFERENCES providers,
    ADD FOREIGN KEY (patient_id) REFERENCES patients,
    ALTER COLUMN patient_id DROP DEFAULT;
ALTER TABLE ahcip_claim_details
    ADD FOREIGN KEY (claim_id) REFERENCES claims ON DELETE CASCADE;
ALTER TABLE wcb_claim_details
    ADD FOREIGN KEY (claim_id) REFERENCES claims ON DELETE CASCADE;
ALTER TABLE wcb_invoice_lines
    ADD FOREIGN KEY (wcb_claim_detail_id) REFERENCES wcb_claim_details
        ON DELETE CASCADE;
ALTER TABLE claim_audit_history
    ADD FOREIGN KEY (claim_id) REFERENCES claims ON DELETE CASCADE;
ALTER TABLE ai_suggestion_events
    ADD FOREIGN KEY (provider_id) REFERENCES providers,
    ADD FOREIGN KEY (rule_id) REFERENCES ai_rules;
ALTER TABLE ai_provider_learning
    ADD FOREIGN KEY (provider_id) REFERENCES providers,
    ADD FOREIGN KEY (rule_id) REFERENCES ai_rules;
