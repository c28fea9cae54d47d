"""Files, folders and streams into the warehouse: readers, validation, quarantine and public log formats."""
